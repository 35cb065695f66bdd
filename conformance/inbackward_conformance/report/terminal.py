"""What a conformance run prints at its end: failures first, a line a chapter, the verdict last."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Level, Outcome
from inbackward_conformance.report.record import CaseRecord, RequirementRecord, count, kept, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Line = tuple[str, dict[str, bool]]
"""The text, and the colours as pytest's terminal names them; the text alone says everything."""

ENOUGH_FAILURES = 12
ENOUGH_LINES = 3


def summary_lines(
    results: dict[str, list[RequirementRecord]], cases: Sequence[CaseRecord], *, verbosity: int, width: int = 80
) -> Iterator[Line]:
    """Yield the lines for each implementation.

    A quiet run (`-q`) has the verdicts alone. A verbose one (`-v`) has all failures, the expected ones too, and the
    whole of what was observed.
    """
    for implementation, requirements in results.items():
        own = [case for case in cases if case.implementation == implementation]
        if verbosity >= 0:
            yield implementation, {"bold": True}
            yield from _failure_lines(requirements, own, verbose=verbosity > 0, width=width)
            yield from _chapter_lines(requirements, width)
            yield from _drawn_lines(own)
        yield _verdict_line(implementation, requirements, len(own))


def _failure_lines(
    requirements: Sequence[RequirementRecord], cases: Sequence[CaseRecord], *, verbose: bool, width: int
) -> Iterator[Line]:
    failed = sorted((found for found in requirements if _broken(found)), key=_urgency)
    expected = [found for found in failed if found.expected]
    told = failed if verbose else [found for found in failed if not found.expected][:ENOUGH_FAILURES]
    for requirement in told:
        own = [case for case in cases if case.requirement == requirement.requirement and not case.passed]
        yield from _failure(requirement, own, width, verbose=verbose)
    if untold := len(failed) - len(told) - (0 if verbose else len(expected)):
        yield f"  and {untold} more; -v shows all", {"red": True}
    if expected and not verbose:
        yield f"  {len(expected)} failed as expected; -v shows them", {"yellow": True}
    scripts = [case.script for case in cases if case.script]
    if paths := [Path(script) for script in scripts if not script.startswith("none")]:
        yield f"  scripts of {len(paths)} cases in {paths[0].parent}{'' if verbose else '; -v names each'}", {}
    if without := len(scripts) - len(paths):
        yield f"  no script of {without} cases{'' if verbose else '; -v says why'}", {}


def _failure(
    requirement: RequirementRecord, failed: Sequence[CaseRecord], width: int, *, verbose: bool
) -> Iterator[Line]:
    worst = next(case for case in failed if case.outcome is Outcome.worst(case.outcome for case in failed))
    name = f"{requirement.requirement}[{worst.case}]" if worst.case else requirement.requirement
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    expected = " as expected" if requirement.expected else ""
    colours = {"yellow": requirement.expected, "red": not requirement.expected}
    yield f"  {requirement.level} {worst.outcome}{expected}: {name}{more}", colours
    max_lines = None if verbose else ENOUGH_LINES
    for line in textwrap.wrap(worst.detail, width - 4, max_lines=max_lines, placeholder=" […]"):
        yield f"    {line}", {}
    yield from ((f"    script: {case.script}", {}) for case in (failed if verbose else [worst]) if case.script)


def _chapter_lines(requirements: Sequence[RequirementRecord], width: int) -> Iterator[Line]:
    chapters = dict.fromkeys(requirement.requirement.partition("/")[0] for requirement in requirements)
    for chapter in chapters:
        inside = [found for found in requirements if found.requirement.startswith(f"{chapter}/")]
        number = sum(map(kept, inside))
        line = f"  {chapter:<20}{number:>3} of {len(inside):>2} kept"
        if others := _but_conforms(inside):
            line += f"   {others}"
        surprise = any(_broken(found) and not found.expected for found in inside)
        colours = {"red": surprise, "yellow": not surprise and any(map(_broken, inside))}
        for part in textwrap.wrap(line, width, subsequent_indent=" " * 38):
            yield part, colours


def _drawn_lines(cases: Sequence[CaseRecord]) -> Iterator[Line]:
    drawn = [case for case in cases if case.drawn]
    if drawn:
        plans, seconds = sum(case.drawn for case in drawn), sum(case.seconds for case in drawn)
        yield f"  {plans} plans drawn, {plans / seconds:.0f} a second", {}


def _verdict_line(implementation: str, requirements: Sequence[RequirementRecord], cases: int) -> Line:
    found = verdict(requirements)
    numbers = []
    for level in Level:
        own = [requirement for requirement in requirements if requirement.level == level and requirement.applies]
        if own:
            numbers.append(f"{level} {sum(map(kept, own))} of {len(own)}")
    line = f"{implementation}: {found} ({', '.join(numbers)} kept, {cases} cases)"
    return line, {"bold": True, "green": found == "conformant", "red": found != "conformant"}


def _broken(requirement: RequirementRecord) -> bool:
    return not requirement.passed and requirement.outcome is not Outcome.NOT_RUN


def _urgency(requirement: RequirementRecord) -> tuple[bool, int]:
    """MUSTs first, and the worst outcome first."""
    return requirement.level != Level.MUST, list(Outcome).index(requirement.outcome)


def _but_conforms(requirements: Sequence[RequirementRecord]) -> str:
    counted = count(requirements)
    return ", ".join(f"{counted[o]} {o}" for o in Outcome if counted[o] and o is not Outcome.CONFORMS)
