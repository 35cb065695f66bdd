"""Compares the trace of an implementation with that of the standard loop, bitwise or within a tolerance."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from inbackward_conformance.outcome import CONFORMS, Compared, Difference, Finding, Outcome, Refusal
from inbackward_conformance.tensors import close, describe_difference, same_bits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from inbackward_conformance.training.trace import Raised, Snapshot, State, Trace

    Mismatch = tuple[Compared, Outcome, str]

MAX_PERMUTED = 4
"""Up to so many states of a parameter are matched in any order; more are matched in order of listing."""


def compare(standard: Trace, observed: Trace, may_refuse: Refusal | None = None, tolerance: float = 0.0) -> Finding:
    """Return the finding of `observed`, a trace of an implementation, against the trace of the standard loop.

    `may_refuse` is the latest moment at which a refusal passes; None if no refusal does.
    `tolerance` is the largest difference that passes, relative to the largest value of a tensor; 0 means bitwise equal.
    """
    compared = min(len(standard.snapshots) - bool(standard.raised), len(observed.snapshots) - bool(observed.raised))
    pairs = zip(standard.snapshots[:compared], observed.snapshots[:compared], strict=True)
    for number, (expected, actual) in enumerate(pairs):
        if finding := difference(expected, actual, tolerance, number):
            return finding
    if standard.raised and len(observed.snapshots) - bool(observed.raised) >= len(standard.snapshots):
        raised = standard.raised
        detail = f"{raised.event} goes through, where the standard loop raises {raised.text}"
        where = Difference(Compared.STANDARD_ERROR, len(standard.snapshots) - 1)
        return Finding(Outcome.DIVERGES, detail, passed=False, difference=where)
    if observed.raised is None:
        return CONFORMS
    if standard.raised and standard.raised.event == observed.raised.event:
        changed = ", ".join(_changes(observed)) or "nothing"
        return Finding(
            Outcome.CONFORMS, f"raises, as the standard loop does: {observed.raised.text}; changed before: {changed}"
        )
    finding = _judge_refusal(observed.raised, _changes(observed), _attached(observed), may_refuse)
    where = Difference(Compared.ERROR, len(observed.snapshots) - 1, observed.raised.refusal)
    return replace(finding, difference=where)


def difference(
    expected: Snapshot, actual: Snapshot, tolerance: float = 0.0, event: int | None = None
) -> Finding | None:
    """Return the first difference between two snapshots of the same event, whose number is `event`."""
    mismatches = itertools.chain(
        _values(Compared.PARAMETERS, expected.params, actual.params, actual.event, tolerance),
        _values(Compared.BUFFERS, expected.buffers, actual.buffers, actual.event, tolerance),
        _grads(expected, actual, tolerance),
        _states(expected, actual, tolerance),
    )
    for compared, outcome, detail in mismatches:
        return Finding(outcome, detail, passed=False, difference=Difference(compared, event))
    return None


def _values(
    kind: Compared, expected: dict[str, Tensor], actual: dict[str, Tensor], event: str, tolerance: float
) -> Iterator[Mismatch]:
    if expected.keys() != actual.keys():
        yield kind, Outcome.FAILS, f"after {event} the model has the {kind} {list(actual)}, expected {list(expected)}"
        return
    for name, value in expected.items():
        if not close(value, actual[name], tolerance):
            how = describe_difference(value, actual[name])
            detail = f"{kind.removesuffix('s')} {name!r} differs from the standard loop after {event}: {how}"
            yield kind, Outcome.DIVERGES, detail


def _grads(expected: Snapshot, actual: Snapshot, tolerance: float) -> Iterator[Mismatch]:
    kind = Compared.GRADIENTS
    for name, grad in expected.grads.items():
        actual_grad = actual.grads[name]
        if actual_grad is None and grad is not None:
            yield kind, Outcome.FAILS, f"{name}.grad is None after {actual.event}; the standard loop keeps it"
        elif actual_grad is not None and grad is None:
            yield kind, Outcome.FAILS, f"{name}.grad is left over after {actual.event}; expected None"
        elif grad is not None and actual_grad is not None and not close(grad, actual_grad, tolerance):
            how = describe_difference(grad, actual_grad)
            detail = f"{name}.grad differs from the standard loop after {actual.event}: {how}"
            yield kind, Outcome.DIVERGES, detail


def _states(expected: Snapshot, actual: Snapshot, tolerance: float) -> Iterator[Mismatch]:
    if expected.states is None or actual.states is None:
        return
    for name, states in expected.states.items():
        if not same_states(states, actual.states[name], tolerance):
            how = describe_states(states, actual.states[name])
            detail = f"optimizer state of {name!r} differs from the standard loop after {actual.event}: {how}"
            yield Compared.STATES, Outcome.DIVERGES, detail


def describe_states(expected: list[State], actual: list[State]) -> str:
    """Return which entry of the states differs first, and how."""
    if len(expected) != len(actual):
        return f"{len(actual)} optimizers hold a state for it, expected {len(expected)}"
    for expected_state, actual_state in zip(expected, actual, strict=True):
        for key in sorted({*expected_state, *actual_state}):
            if key not in actual_state or key not in expected_state:
                return f"{key!r} is {'missing' if key in expected_state else 'unexpected'}"
            want, got = expected_state[key], actual_state[key]
            if not _same_value(want, got):
                tensors = isinstance(want, torch.Tensor) and isinstance(got, torch.Tensor)
                how = describe_difference(want, got) if tensors else f"{got!r}, expected {want!r}"
                return f"{key!r}: {how}"
    return "the same values in another order"


def _judge_refusal(raised: Raised, changed: list[str], attached: list[str], may_refuse: Refusal | None) -> Finding:
    what = f"{raised.event} raises {raised.text}"
    if raised.accidental:
        return _failed(Outcome.FAILS, f"an accident, not a refusal: {what}")
    if changed and may_refuse is not Refusal.LATE:
        return _failed(Outcome.FAILS, f"torn update: {what}, after it had changed {', '.join(changed)}")
    if changed and not raised.mentions_steps:
        # After a late refusal only a checkpoint restores the model, so the message has to mention the steps. Autograd's
        # own "modified by an inplace operation" does not: it blames an operation that the user has not written.
        return _failed(
            Outcome.FAILS,
            f"torn update: {what}, without a word of the parameters already stepped: {', '.join(changed)}",
        )
    if raised.attaching == 1 and attached:
        return _failed(Outcome.FAILS, f"refused, but something is attached to {', '.join(attached)}: {what}")
    if may_refuse is Refusal.AT_ATTACHMENT and not raised.attaching:
        return _failed(Outcome.FAILS, f"refused too late, expected at attachment: {what}")
    return Finding(Outcome.REFUSES, what, passed=may_refuse is not None)


def _changes(trace: Trace) -> list[str]:
    """Return the names of the parameters and states that the last event changed before it raised."""
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
    """Return the names of the parameters that the last event attached optimizers to before it raised."""
    before, after = [trace.start, *trace.snapshots][-2:]
    if before.attached is None or after.attached is None:
        return []
    return [name for name, count in after.attached.items() if count != before.attached.get(name)]


def _attaching(trace: Trace) -> bool:
    return trace.raised is not None and trace.raised.attaching > 0


def same_states(expected: list[State], actual: list[State], tolerance: float = 0.0) -> bool:
    """Return whether two lists have the same states, in any order."""
    if len(expected) != len(actual):
        return False
    orders = itertools.permutations(actual) if len(actual) <= MAX_PERMUTED else iter([tuple(actual)])
    return any(
        all(_same_state(want, state, tolerance) for want, state in zip(expected, order, strict=True))
        for order in orders
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


def _failed(outcome: Outcome, detail: str) -> Finding:
    return Finding(outcome, detail, passed=False)
