"""Compares the trace of an implementation with that of the standard loop, bit by bit, and names what differs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch

from inbackward_conformance.outcome import CONFORMS, Finding, Outcome, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from inbackward_conformance.trace import Raised, Snapshot, State, Trace

ENOUGH_TO_PERMUTE = 4
"""States of a parameter are matched in any order up to this many optimizers; beyond, in order of listing."""


def compare(standard: Trace, observed: Trace, may_refuse: Refusal | None = None, tolerance: float = 0.0) -> Finding:
    """Return what `observed`, a trace of an implementation, came to against the trace of the standard loop.

    `may_refuse` is the latest moment at which a refusal passes; None where no refusal does.
    `tolerance` is the largest difference that passes, relative to the largest value of a tensor; 0: to the bit.
    """
    compared = min(len(standard.snapshots) - bool(standard.raised), len(observed.snapshots) - bool(observed.raised))
    for expected, actual in zip(standard.snapshots[:compared], observed.snapshots[:compared], strict=True):
        if finding := difference(expected, actual, tolerance):
            return finding
    if standard.raised and len(observed.snapshots) - bool(observed.raised) >= len(standard.snapshots):
        raised = standard.raised
        return _broken(Outcome.DIVERGES, f"{raised.event} goes through, where the standard loop raises {raised.text}")
    if observed.raised is None:
        return CONFORMS
    if standard.raised and standard.raised.event == observed.raised.event:
        changed = ", ".join(_changes(observed)) or "nothing"
        return Finding(
            Outcome.CONFORMS, f"raises, as the standard loop does: {observed.raised.text}; changed before: {changed}"
        )
    return _judge_refusal(observed.raised, _changes(observed), _attached(observed), may_refuse)


def difference(expected: Snapshot, actual: Snapshot, tolerance: float = 0.0) -> Finding | None:
    """Return the first difference between two snapshots of the same event."""
    differences = (_params, _buffers, _grads, _states)
    return next((found for differ in differences for found in differ(expected, actual, tolerance)), None)


def _params(expected: Snapshot, actual: Snapshot, tolerance: float) -> Iterator[Finding]:
    return _values("parameter", expected.params, actual.params, actual.event, tolerance)


def _buffers(expected: Snapshot, actual: Snapshot, tolerance: float) -> Iterator[Finding]:
    return _values("buffer", expected.buffers, actual.buffers, actual.event, tolerance)


def _values(
    kind: str, expected: dict[str, Tensor], actual: dict[str, Tensor], event: str, tolerance: float
) -> Iterator[Finding]:
    if expected.keys() != actual.keys():
        names = f"{list(actual)}, expected {list(expected)}"
        yield _broken(Outcome.FAILS, f"after {event} the model has the {kind}s {names}")
        return
    for name, value in expected.items():
        if not close(value, actual[name], tolerance):
            yield _broken(
                Outcome.DIVERGES,
                f"{kind} {name!r} differs from the standard loop after {event}: "
                f"{describe_difference(value, actual[name])}",
            )


def _grads(expected: Snapshot, actual: Snapshot, tolerance: float) -> Iterator[Finding]:
    for name, grad in expected.grads.items():
        left = actual.grads[name]
        if left is None and grad is not None:
            yield _broken(Outcome.FAILS, f"{name}.grad is None after {actual.event}; the standard loop keeps it")
        elif left is not None and grad is None:
            yield _broken(Outcome.FAILS, f"{name}.grad is left over after {actual.event}; expected None")
        elif grad is not None and left is not None and not close(grad, left, tolerance):
            yield _broken(
                Outcome.DIVERGES,
                f"{name}.grad differs from the standard loop after {actual.event}: {describe_difference(grad, left)}",
            )


def _states(expected: Snapshot, actual: Snapshot, tolerance: float) -> Iterator[Finding]:
    if expected.states is None or actual.states is None:
        return
    for name, states in expected.states.items():
        if not same_states(states, actual.states[name], tolerance):
            yield _broken(
                Outcome.DIVERGES,
                f"optimizer state of {name!r} differs from the standard loop after {actual.event}: "
                f"{describe_states(states, actual.states[name])}",
            )


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether two tensors are the same to the bit, or at least to the tolerance."""
    if same_bits(a, b):
        return True
    if not tolerance or a.dtype != b.dtype or a.shape != b.shape or not a.is_floating_point():
        return False
    a, b = a.to_dense().double(), b.to_dense().double()
    return bool((a - b).abs().max() <= tolerance * a.abs().max())


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same to the bit, NaN and the sign of zero included."""
    if a.dtype != b.dtype or a.shape != b.shape or a.layout != b.layout:
        return False
    if a.layout != torch.strided:
        a, b = a.coalesce(), b.coalesce()
        return same_bits(a.indices(), b.indices()) and same_bits(a.values(), b.values())
    return torch.equal(bits(a), bits(b))


def describe_difference(expected: Tensor, actual: Tensor) -> str:
    """Name the largest difference of two tensors, or what else tells them apart."""
    if expected.dtype != actual.dtype:
        return f"dtype {actual.dtype}, expected {expected.dtype}"
    if expected.shape != actual.shape:
        return f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    wide = torch.complex128 if expected.is_complex() else torch.float64
    distance = (actual.to_dense().to(wide) - expected.to_dense().to(wide)).abs()
    if distance.isnan().any():
        return "non-finite values differ"
    return f"largest difference {distance.max().item():.3g}"


def describe_states(expected: list[State], actual: list[State]) -> str:
    """Name the first entry of the states that differs."""
    if len(expected) != len(actual):
        return f"{len(actual)} optimizers hold a state for it, expected {len(expected)}"
    for one, other in zip(expected, actual, strict=True):
        for key in sorted({*one, *other}):
            if key not in other or key not in one:
                return f"{key!r} is {'missing' if key in one else 'unexpected'}"
            if not _same_value(one[key], other[key]):
                both = isinstance(one[key], torch.Tensor) and isinstance(other[key], torch.Tensor)
                how = describe_difference(one[key], other[key]) if both else f"{other[key]!r}, expected {one[key]!r}"
                return f"{key!r}: {how}"
    return "the same values in another order"


def _judge_refusal(raised: Raised, changed: list[str], attached: list[str], may_refuse: Refusal | None) -> Finding:
    what = f"{raised.event} raises {raised.text}"
    if raised.accidental:
        return _broken(Outcome.FAILS, f"an accident, not a refusal: {what}")
    if changed and may_refuse is not Refusal.LATE:
        return _broken(Outcome.FAILS, f"torn update: {what}, after it had changed {', '.join(changed)}")
    if changed and not raised.tells_of_steps:
        # A late refusal leaves a model behind that only a checkpoint mends, and the user has to be told. Autograd's own
        # "modified by an inplace operation" comes of the step too, but blames an operation that the user has not
        # written, and says nothing of the steps: one would go on with a torn model.
        return _broken(
            Outcome.FAILS,
            f"torn update: {what}, without a word of the parameters already stepped: {', '.join(changed)}",
        )
    if raised.attaching == 1 and attached:
        return _broken(Outcome.FAILS, f"refused, but something is attached to {', '.join(attached)}: {what}")
    if may_refuse is Refusal.AT_ATTACHMENT and not raised.attaching:
        return _broken(Outcome.FAILS, f"refused too late, expected at attachment: {what}")
    return Finding(Outcome.REFUSES, what, passed=may_refuse is not None)


def _changes(trace: Trace) -> list[str]:
    """Return which parameters and states the event that raised had changed before it did."""
    before, after = [trace.start, *trace.snapshots][-2:]
    changed = [
        name
        for name, value in before.params.items()
        if name in after.params and not same_bits(value, after.params[name])
    ]
    if before.states is not None and after.states is not None and not _attaching(trace):
        changed += [
            f"the state of {name}"
            for name, states in before.states.items()
            if name in after.states and not same_states(states, after.states[name])
        ]
    return changed


def _attached(trace: Trace) -> list[str]:
    """Return to which parameters the event that raised had attached something."""
    before, after = [trace.start, *trace.snapshots][-2:]
    if before.attached is None or after.attached is None:
        return []
    return [name for name, count in after.attached.items() if count != before.attached.get(name)]


def _attaching(trace: Trace) -> bool:
    return trace.raised is not None and trace.raised.attaching > 0


def same_states(expected: list[State], actual: list[State], tolerance: float = 0.0) -> bool:
    """Whether two lists of states hold the same ones, in any order."""
    if len(expected) != len(actual):
        return False
    orders = itertools.permutations(actual) if len(actual) <= ENOUGH_TO_PERMUTE else iter([tuple(actual)])
    return any(
        all(_same_state(one, other, tolerance) for one, other in zip(expected, order, strict=True)) for order in orders
    )


def _same_state(expected: State, actual: State, tolerance: float) -> bool:
    return expected.keys() == actual.keys() and all(
        _same_value(expected[key], actual[key], tolerance) for key in expected
    )


def _same_value(expected: Any, actual: Any, tolerance: float = 0.0) -> bool:
    if isinstance(expected, torch.Tensor) and isinstance(actual, torch.Tensor):
        return close(expected, actual, tolerance)
    if isinstance(expected, list | tuple) and isinstance(actual, list | tuple):
        return len(expected) == len(actual) and all(map(_same_value, expected, actual))
    return type(expected) is type(actual) and bool(expected == actual)


def bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a strided tensor, of shape (bytes,)."""
    return tensor.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8)


def _broken(outcome: Outcome, detail: str) -> Finding:
    return Finding(outcome, detail, passed=False)
