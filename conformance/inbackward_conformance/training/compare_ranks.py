"""Compares the traces of all ranks, and combines them into one finding."""

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

_COMMUNICATION = re.compile(r"gloo|nccl|connection (closed|reset|refused)|timed? ?out|DistBackendError", re.IGNORECASE)
_TIMED_OUT = re.compile(r"timed? ?out", re.IGNORECASE)


def compare_ranks(
    standard: Sequence[Trace], observed: Sequence[Trace], may_refuse: Refusal | None = None, tolerance: float = 0.0
) -> Finding:
    """Return the finding of the traces of an implementation, one for each rank.

    Without an error, every rank has to be equal to the same rank of the standard loop, and the ranks bitwise equal to
    each other wherever those of the standard loop are, whatever the tolerance: they have added up the same gradients.

    A refusal has to be that of all ranks: each has to raise, and none may have changed anything in the event that
    raised. A rank whose peer has exited raises a communication error, which is judged as the error of that peer. If all
    errors are communication errors, no rank has refused; ranks that wait for each other until a collective times out
    `hang`.
    """
    raised = {number: trace.raised for number, trace in enumerate(observed) if trace.raised}
    own = {number: error for number, error in raised.items() if not _is_communication_error(error)}
    if raised and not own and not any(trace.raised for trace in standard):
        return _communication_failure(raised, observed)
    first = next(iter(own), None)
    findings = {}
    for number, (expected, actual) in enumerate(zip(standard, observed, strict=True)):
        if first is None or number in own or number not in raised:
            findings[number] = compare(expected, actual, may_refuse, tolerance)
        else:
            findings[number] = compare(expected, _with_error(actual, own[first]), _for_peers(may_refuse), tolerance)
    silent = next((number for number in range(len(observed)) if number not in raised), None)
    if silent is not None and first is not None and findings[first].outcome is Outcome.REFUSES:
        detail = f"rank {first} alone: {findings[first].detail}; rank {silent} goes through"
        return replace(findings[first], outcome=Outcome.FAILS, detail=detail, passed=False)
    worst = _worst(findings, own or findings)
    if worst is not None and worst.outcome is not Outcome.NOT_RUN:
        return worst
    return _diverging_ranks(standard, observed) or worst or next(iter(findings.values()), CONFORMS)


def _with_error(trace: Trace, error: Raised) -> Trace:
    """Return the trace with `error`, that of a peer, instead of the communication error that it caused."""
    assert trace.raised
    return replace(trace, raised=replace(error, event=trace.raised.event, attaching=trace.raised.attaching))


def _for_peers(may_refuse: Refusal | None) -> Refusal | None:
    """Return the latest refusal that passes on peers; they may be past attachment, but must not have changed."""
    return Refusal.BEFORE_ANY_CHANGE if may_refuse is Refusal.AT_ATTACHMENT else may_refuse


def _worst(findings: dict[int, Finding], first: dict[int, Raised] | dict[int, Finding]) -> Finding | None:
    """Return the worst finding, preferably of the ranks in `first`; None if all ranks conform."""
    worst = Outcome.worst(finding.outcome for finding in findings.values())
    if worst is Outcome.CONFORMS:
        return None
    numbers = [number for number, finding in findings.items() if finding.outcome is worst]
    number = next((number for number in numbers if number in first), numbers[0])
    finding = findings[number]
    passed = all(finding.passed for finding in findings.values())
    return replace(finding, detail=f"rank {number}: {finding.detail}", passed=passed)


def _diverging_ranks(standard: Sequence[Trace], observed: Sequence[Trace]) -> Finding | None:
    """Return where ranks first differ from each other that are equal in the standard loop."""
    for number in range(1, len(observed)):
        snapshots = zip(
            standard[0].snapshots, standard[number].snapshots, observed[0].snapshots, observed[number].snapshots,
            strict=False,
        )  # fmt: skip
        for event, (expected_0, expected, first, actual) in enumerate(snapshots):
            for name in first.params.keys() & actual.params.keys() & expected_0.params.keys() & expected.params.keys():
                equal = same_bits(expected_0.params[name], expected.params[name])
                if equal and not same_bits(first.params[name], actual.params[name]):
                    how = describe_difference(first.params[name], actual.params[name])
                    detail = f"parameter {name!r} differs between rank 0 and rank {number} after {first.event}: {how}"
                    where = Difference(Compared.RANKS, event)
                    return Finding(Outcome.DIVERGES, detail, passed=False, difference=where)
    return None


def _communication_failure(raised: dict[int, Raised], observed: Sequence[Trace]) -> Finding:
    """Return the finding of ranks that raised communication errors alone.

    The first rank to time out exits, which is an error on the others. Since any of them may be first, name them all.
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


def _is_communication_error(error: Raised) -> bool:
    return bool(_COMMUNICATION.search(error.text))
