"""Compares the trace of an implementation with that of the standard loop, bitwise or within a tolerance."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import CONFORMS, Compared, Difference, Finding, Outcome, Refusal
from inbackward_conformance.tensors import close, describe_difference, same_bits
from inbackward_conformance.values import first_difference, first_incomparable

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
    not_compared = None
    for number, (expected, actual) in enumerate(pairs):
        if finding := difference(expected, actual, tolerance, number):
            if not finding.passed:
                return finding
            not_compared = not_compared or finding
    finding = _judge_errors(standard, observed, may_refuse)
    return not_compared if not_compared and finding.passed else finding


def _judge_errors(standard: Trace, observed: Trace, may_refuse: Refusal | None) -> Finding:
    """Return the finding of two traces that are equal up to the first error of either."""
    if standard.raised and len(observed.snapshots) - bool(observed.raised) >= len(standard.snapshots):
        raised = standard.raised
        detail = f"{raised.event} goes through, where the standard loop raises {raised.text}"
        where = Difference(Compared.STANDARD_ERROR, len(standard.snapshots) - 1)
        return Finding(Outcome.DIVERGES, detail, passed=False, difference=where)
    if observed.raised is None:
        return CONFORMS
    as_standard = standard.raised and standard.raised.event == observed.raised.event
    if as_standard and not observed.raised.changed_after:
        changed = ", ".join(_changes(observed)) or "nothing"
        return Finding(
            Outcome.CONFORMS, f"raises, as the standard loop does: {observed.raised.text}; changed before: {changed}"
        )
    finding = _judge_refusal(observed.raised, _changes(observed), _attached(observed), may_refuse)
    compared = Compared.AFTER_REFUSAL if observed.raised.changed_after else Compared.ERROR
    where = Difference(compared, len(observed.snapshots) - 1, observed.raised.refusal)
    return replace(finding, difference=where)


def difference(
    expected: Snapshot, actual: Snapshot, tolerance: float = 0.0, event: int | None = None
) -> Finding | None:
    """Return the first difference between two snapshots of the same event, whose number is `event`.

    If there is none, but a state that cannot be compared, the finding says so, and passes as `not run`: nobody knows
    whether it differs.
    """
    mismatches = itertools.chain(
        _values(Compared.PARAMETERS, expected.params, actual.params, actual.event, tolerance),
        _values(Compared.BUFFERS, expected.buffers, actual.buffers, actual.event, tolerance),
        _grads(expected, actual, tolerance),
        _states(expected, actual, tolerance),
    )
    for compared, outcome, detail in mismatches:
        return Finding(outcome, detail, passed=False, difference=Difference(compared, event))
    return _not_compared(expected, actual)


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
            how = describe_states(states, actual.states[name], tolerance)
            detail = f"optimizer state of {name!r} differs from the standard loop after {actual.event}: {how}"
            yield Compared.STATES, Outcome.DIVERGES, detail


def _not_compared(expected: Snapshot, actual: Snapshot) -> Finding | None:
    if expected.states is None or actual.states is None:
        return None
    for name, states in expected.states.items():
        if what := incomparable(states):
            return Finding(Outcome.NOT_RUN, f"optimizer state of {name!r} after {actual.event}: {what}")
    return None


def incomparable(states: list[State]) -> str:
    """Return what in equal states cannot be compared, and the remedy; empty if everything can."""
    what = next(filter(None, map(first_incomparable, states)), "")
    return what and f"{what}, so it cannot be compared; let `state_of` of the adapter return what can"


def describe_states(expected: list[State], actual: list[State], tolerance: float = 0.0) -> str:
    """Return which entry of the states differs first, and how."""
    if len(expected) != len(actual):
        return f"{len(actual)} optimizers hold a state for it, expected {len(expected)}"
    differences = map(first_difference, expected, actual, itertools.repeat(tolerance))
    return next(filter(None, differences), "the same values in another order")


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
    if raised.changed_after:
        return _failed(
            Outcome.FAILS, f"refused, but the next backward changes {', '.join(raised.changed_after)}: {what}"
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
    return any(not any(map(first_difference, expected, order, itertools.repeat(tolerance))) for order in orders)


def _failed(outcome: Outcome, detail: str) -> Finding:
    return Finding(outcome, detail, passed=False)
