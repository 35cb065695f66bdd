"""Compares what the ranks of a distributed run left, rank by rank, and decides what they came to together."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import CONFORMS, Compared, Difference, Finding, Outcome, Refusal
from inbackward_conformance.tensors import describe_difference, same_bits
from inbackward_conformance.training.compare import compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inbackward_conformance.training.trace import Raised, Trace

_OF_COMMUNICATION = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|timed? ?out|DistBackendError", re.IGNORECASE
)
_TIMED_OUT = re.compile(r"timed? ?out", re.IGNORECASE)


def compare_ranks(
    standard: Sequence[Trace], observed: Sequence[Trace], may_refuse: Refusal | None = None, tolerance: float = 0.0
) -> Finding:
    """Return what the traces of an implementation, one for each rank, came to together.

    Without an error, every rank has to be equal to the same rank of the standard loop, and the ranks bitwise equal to
    each other wherever those of the standard loop are.

    An error is a refusal of all: every rank has to raise, and nobody may have changed anything in the event that raised
    there. A rank whose peer has left raises an error of communication, which echoes the error of that peer and is
    judged as that. Where there is no other error than those, nobody has refused: ranks that wait for each other until
    a collective is out of time `hang`.
    """
    raised = {number: trace.raised for number, trace in enumerate(observed) if trace.raised}
    own = {number: error for number, error in raised.items() if not _of_communication(error)}
    if raised and not own and not any(trace.raised for trace in standard):
        return _without_a_word(raised, observed)
    first = next(iter(own), None)
    findings = {}
    for number, (expected, actual) in enumerate(zip(standard, observed, strict=True)):
        if first is None or number in own or number not in raised:
            findings[number] = compare(expected, actual, may_refuse, tolerance)
        else:
            findings[number] = compare(expected, _echo(actual, own[first]), _at_latest(may_refuse), tolerance)
    silent = next((number for number in range(len(observed)) if number not in raised), None)
    if silent is not None and first is not None and findings[first].outcome is Outcome.REFUSES:
        detail = f"rank {first} alone: {findings[first].detail}; rank {silent} goes through"
        return replace(findings[first], outcome=Outcome.FAILS, detail=detail, passed=False)
    if (worst := _worst(findings, own or findings)) is not None:
        return worst
    return _apart(standard, observed) or next(iter(findings.values()), CONFORMS)


def _echo(trace: Trace, error: Raised) -> Trace:
    """Return the trace of a rank that was told of `error`, another rank's, in the words of that rank."""
    assert trace.raised
    return replace(trace, raised=replace(error, event=trace.raised.event, attaching=trace.raised.attaching))


def _at_latest(may_refuse: Refusal | None) -> Refusal | None:
    """Return when a refusal has to be heard on the other ranks, who may be further: nothing may have changed there."""
    return Refusal.BEFORE_ANY_CHANGE if may_refuse is Refusal.AT_ATTACHMENT else may_refuse


def _worst(findings: dict[int, Finding], first: dict[int, Raised] | dict[int, Finding]) -> Finding | None:
    """Return the finding of the ranks that is worst, of the ranks in `first` if it is theirs; None: all conform."""
    worst = Outcome.worst(finding.outcome for finding in findings.values())
    if worst is Outcome.CONFORMS:
        return None
    numbers = [number for number, finding in findings.items() if finding.outcome is worst]
    number = next((number for number in numbers if number in first), numbers[0])
    finding = findings[number]
    passed = all(finding.passed for finding in findings.values())
    return replace(finding, detail=f"rank {number}: {finding.detail}", passed=passed)


def _apart(standard: Sequence[Trace], observed: Sequence[Trace]) -> Finding | None:
    """Return where ranks have drifted apart that stay together in the standard loop."""
    for number in range(1, len(observed)):
        snapshots = zip(
            standard[0].snapshots, standard[number].snapshots, observed[0].snapshots, observed[number].snapshots,
            strict=False,
        )  # fmt: skip
        for event, (ours, theirs, first, other) in enumerate(snapshots):
            for name in first.params.keys() & other.params.keys() & ours.params.keys() & theirs.params.keys():
                together = same_bits(ours.params[name], theirs.params[name])
                if together and not same_bits(first.params[name], other.params[name]):
                    how = describe_difference(first.params[name], other.params[name])
                    detail = f"parameter {name!r} differs between rank 0 and rank {number} after {first.event}: {how}"
                    where = Difference(Compared.RANKS, event)
                    return Finding(Outcome.DIVERGES, detail, passed=False, difference=where)
    return None


def _without_a_word(raised: dict[int, Raised], observed: Sequence[Trace]) -> Finding:
    """Return what errors of communication alone come to.

    Who is out of time leaves, and the others see that it left. Which of them that is, is chance: all are named.
    """
    number, error = next(((n, e) for n, e in raised.items() if _TIMED_OUT.search(e.text)), next(iter(raised.items())))
    if _TIMED_OUT.search(error.text):
        where = "; ".join(f"rank {rank} in {waiting.event}" for rank, waiting in raised.items())
        detail = f"ranks wait for each other: {where}: {error.text}"
        first = len(observed[next(iter(raised))].snapshots) - 1
        return Finding(Outcome.HANGS, detail, passed=False, difference=Difference(Compared.PARAMETERS, first))
    detail = f"an accident, not a refusal: rank {number}: {error.event} raises {error.text}"
    difference = Difference(Compared.ERROR, len(observed[number].snapshots) - 1, error.refusal)
    return Finding(Outcome.FAILS, detail, passed=False, difference=difference)


def _of_communication(error: Raised) -> bool:
    return bool(_OF_COMMUNICATION.search(error.text))
