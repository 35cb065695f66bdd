"""What a conformance run prints at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Outcome
from inbackward_conformance.record import CaseRecord, RequirementRecord, count, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Line = tuple[str, dict[str, bool]]


def summary_lines(
    results: dict[str, list[RequirementRecord]], cases: Sequence[CaseRecord], *, quiet: bool
) -> Iterator[Line]:
    """Yield the lines, each with its colours: for each implementation its chapters, its failures and its verdict."""
    for implementation, requirements in results.items():
        own = [case for case in cases if case.implementation == implementation]
        if not quiet:
            yield f"{implementation}", {"bold": True}
            yield from _failure_lines(requirements, own)
            yield from _chapter_lines(requirements)
        yield _verdict_line(implementation, requirements, len(own))


def _chapter_lines(requirements: Sequence[RequirementRecord]) -> Iterator[Line]:
    chapters = dict.fromkeys(requirement.requirement.partition("/")[0] for requirement in requirements)
    for chapter in chapters:
        inside = [found for found in requirements if found.requirement.startswith(f"{chapter}/")]
        passed = sum(found.passed for found in inside)
        outcomes = ", ".join(f"{number} {outcome}" for outcome, number in count(inside).items() if number)
        cases = sum(found.cases for found in inside)
        yield f"  {chapter:<22}{passed:>3} of {len(inside):<3}{cases:>5} cases   {outcomes}", {}


def _failure_lines(requirements: Sequence[RequirementRecord], cases: Sequence[CaseRecord]) -> Iterator[Line]:
    for requirement in requirements:
        failed = [case for case in cases if case.requirement == requirement.requirement and not case.passed]
        if not failed:
            continue
        worst = next(case for case in failed if case.outcome is Outcome.worst(case.outcome for case in failed))
        expected = " (expected)" if requirement.expected else ""
        name = f"{requirement.requirement}[{worst.case}]" if worst.case else requirement.requirement
        more = f" (and {len(failed) - 1} more cases)" if len(failed) > 1 else ""
        yield (
            f"  {worst.outcome}{expected} {name}{more}",
            {"yellow": requirement.expected, "red": not requirement.expected},
        )
        yield f"    {worst.detail}", {}


def _verdict_line(implementation: str, requirements: Sequence[RequirementRecord], cases: int) -> Line:
    found = verdict(requirements)
    outcomes = ", ".join(f"{number} {outcome}" for outcome, number in count(requirements).items() if number)
    line = f"{implementation}: {found} ({len(requirements)} requirements, {cases} cases: {outcomes})"
    return line, {"bold": True, "green": found == "conformant", "red": found != "conformant"}
