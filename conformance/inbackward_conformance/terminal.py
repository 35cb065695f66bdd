"""What a conformance run prints at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Outcome
from inbackward_conformance.record import CaseRecord, RequirementRecord, count, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Line = tuple[str, dict[str, bool]]


def summary_lines(
    results: dict[str, list[RequirementRecord]], cases: Sequence[CaseRecord], *, verbosity: int
) -> Iterator[Line]:
    """Yield the lines, each with its colours: for each implementation its failures, its chapters and its verdict.

    A quiet run (`-q`) has the verdicts alone; a verbose one (`-v`) the details of expected failures, too.
    """
    for implementation, requirements in results.items():
        own = [case for case in cases if case.implementation == implementation]
        if verbosity >= 0:
            yield implementation, {"bold": True}
            yield from _failure_lines(requirements, own, details_of_expected=verbosity > 0)
            yield from _chapter_lines(requirements)
            yield from _drawn_lines(own)
        yield _verdict_line(implementation, requirements, len(own))


def _failure_lines(
    requirements: Sequence[RequirementRecord], cases: Sequence[CaseRecord], *, details_of_expected: bool
) -> Iterator[Line]:
    for requirement in requirements:
        failed = [case for case in cases if case.requirement == requirement.requirement and not case.passed]
        if not failed:
            continue
        outcome = Outcome.worst(case.outcome for case in failed)
        worst = next(case for case in failed if case.outcome is outcome)
        name = f"{requirement.requirement}[{worst.case}]" if worst.case else requirement.requirement
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        expected = "expected: " if requirement.expected else ""
        yield f"  {expected}{outcome} {name}{more}", {"yellow": requirement.expected, "red": not requirement.expected}
        if details_of_expected or not requirement.expected:
            yield f"    {worst.detail}", {}


def _chapter_lines(requirements: Sequence[RequirementRecord]) -> Iterator[Line]:
    chapters = dict.fromkeys(requirement.requirement.partition("/")[0] for requirement in requirements)
    for chapter in chapters:
        inside = [found for found in requirements if found.requirement.startswith(f"{chapter}/")]
        passed = sum(found.passed for found in inside)
        cases = sum(found.cases for found in inside)
        yield f"  {chapter:<20}{passed:>3} of {len(inside):>2} passed{cases:>5} cases: {_outcomes(inside)}", {}


def _drawn_lines(cases: Sequence[CaseRecord]) -> Iterator[Line]:
    drawn = [case for case in cases if case.drawn]
    if drawn:
        plans, seconds = sum(case.drawn for case in drawn), sum(case.seconds for case in drawn)
        yield f"  {plans} plans drawn, {plans / seconds:.0f} a second", {}


def _verdict_line(implementation: str, requirements: Sequence[RequirementRecord], cases: int) -> Line:
    found = verdict(requirements)
    passed = sum(requirement.passed for requirement in requirements)
    line = f"{implementation}: {found} ({passed} of {len(requirements)} requirements passed, {cases} cases)"
    return line, {"bold": True, "green": found == "conformant", "red": found != "conformant"}


def _outcomes(requirements: Sequence[RequirementRecord]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in count(requirements).items() if number)
