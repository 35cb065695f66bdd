"""The terminal summary of a run: failures, one line per chapter, and the verdict."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Level, Outcome
from inbackward_conformance.report.record import CaseRecord, RequirementRecord, count, kept, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Line = tuple[str, dict[str, bool]]
"""The text, and its colours in the names of pytest's terminal writer."""

MAX_FAILURES = 12
MAX_DETAIL_LINES = 3


def summary_lines(
    results: dict[str, list[RequirementRecord]], cases: Sequence[CaseRecord], *, verbosity: int, width: int = 80
) -> Iterator[Line]:
    """Yield the lines for each implementation.

    A quiet run (`-q`) has only verdicts. A verbose run (`-v`) has all failures, expected ones too, in full.
    """
    for implementation, requirements in results.items():
        tested = [case for case in cases if case.implementation == implementation]
        if verbosity >= 0:
            yield implementation, {"bold": True}
            yield from _failure_lines(requirements, tested, verbose=verbosity > 0, width=width)
            yield from _chapter_lines(requirements, width)
            yield from _drawn_lines(tested)
        yield _verdict_line(implementation, requirements, len(tested))


def _failure_lines(
    requirements: Sequence[RequirementRecord], cases: Sequence[CaseRecord], *, verbose: bool, width: int
) -> Iterator[Line]:
    failed = sorted(filter(_failed, requirements), key=_severity)
    expected = [requirement for requirement in failed if requirement.expected]
    unexpected = [requirement for requirement in failed if not requirement.expected]
    shown = failed if verbose else unexpected[:MAX_FAILURES]
    for requirement in shown:
        failures = [case for case in cases if case.requirement == requirement.requirement and not case.passed]
        yield from _failure(requirement, failures, width, verbose=verbose)
    if hidden := len(failed if verbose else unexpected) - len(shown):
        yield f"  and {hidden} more; -v shows all", {"red": True}
    if expected and not verbose:
        yield f"  {len(expected)} failed as expected; -v shows them", {"yellow": True}
    scripts = [case.script for case in cases if case.script]
    if paths := [Path(script) for script in scripts if not script.startswith("none")]:
        yield f"  scripts of {len(paths)} cases in {paths[0].parent}{'' if verbose else '; -v names each'}", {}
    if others := sum(bool(case.script_ends) for case in cases):
        yield f"  {others} of these scripts end otherwise than the record says{'' if verbose else '; -v says how'}", {}
    if missing := len(scripts) - len(paths):
        yield f"  no script of {missing} cases{'' if verbose else '; -v says why'}", {}


def _failure(
    requirement: RequirementRecord, failed: Sequence[CaseRecord], width: int, *, verbose: bool
) -> Iterator[Line]:
    worst = next(case for case in failed if case.outcome is Outcome.worst(case.outcome for case in failed))
    name = f"{requirement.requirement}[{worst.case}]" if worst.case else requirement.requirement
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    expected = " as expected" if requirement.expected else ""
    colours = {"yellow": requirement.expected, "red": not requirement.expected}
    yield f"  {requirement.level} {worst.outcome}{expected}: {name}{more}", colours
    max_lines = None if verbose else MAX_DETAIL_LINES
    for line in textwrap.wrap(worst.detail, width - 4, max_lines=max_lines, placeholder=" […]"):
        yield f"    {line}", {}
    for case in failed if verbose else [worst]:
        if case.script:
            yield f"    script: {case.script}{f' (it {case.script_ends})' if case.script_ends else ''}", {}


def _chapter_lines(requirements: Sequence[RequirementRecord], width: int) -> Iterator[Line]:
    chapters = dict.fromkeys(requirement.requirement.partition("/")[0] for requirement in requirements)
    for chapter in chapters:
        members = [requirement for requirement in requirements if requirement.requirement.startswith(f"{chapter}/")]
        line = f"  {chapter:<20}{sum(map(kept, members)):>3} of {len(members):>2} kept"
        if others := _other_outcomes(members):
            line += f"   {others}"
        failed = list(filter(_failed, members))
        unexpected = not all(requirement.expected for requirement in failed)
        colours = {"red": unexpected, "yellow": bool(failed) and not unexpected}
        for part in textwrap.wrap(line, width, subsequent_indent=" " * 38):
            yield part, colours


def _drawn_lines(cases: Sequence[CaseRecord]) -> Iterator[Line]:
    drawn = [case for case in cases if case.drawn]
    if drawn:
        plans, seconds = sum(case.drawn for case in drawn), sum(case.seconds for case in drawn)
        yield f"  {plans} plans drawn, {plans / seconds:.0f} a second", {}


def _verdict_line(implementation: str, requirements: Sequence[RequirementRecord], cases: int) -> Line:
    conclusion = verdict(requirements)
    levels = {level: [record for record in requirements if record.level == level and record.applies] for level in Level}
    numbers = [f"{level} {sum(map(kept, records))} of {len(records)}" for level, records in levels.items() if records]
    line = f"{implementation}: {conclusion} ({', '.join(numbers)} kept, {cases} cases)"
    return line, {"bold": True, "green": conclusion == "conformant", "red": conclusion != "conformant"}


def _failed(requirement: RequirementRecord) -> bool:
    return not requirement.passed and requirement.outcome is not Outcome.NOT_RUN


def _severity(requirement: RequirementRecord) -> tuple[bool, int]:
    """Return a sort key: MUSTs first, then the worst outcome."""
    return requirement.level != Level.MUST, list(Outcome).index(requirement.outcome)


def _other_outcomes(requirements: Sequence[RequirementRecord]) -> str:
    counts = count(requirements)
    return ", ".join(f"{counts[o]} {o}" for o in Outcome if counts[o] and o is not Outcome.CONFORMS)
