"""The terminal summary of a run: failures, one line per chapter, and the verdict."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Level, Outcome
from inbackward_conformance.report.record import (
    CaseRecord,
    RequirementRecord,
    Standing,
    count,
    describe_rounding,
    reasons_not_run,
    standings,
    standings_by_level,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

Line = tuple[str, dict[str, bool]]
"""The text, and its colours in the names of pytest's terminal writer."""

MAX_FAILURES = 12
MAX_DETAIL_LINES = 3
MAX_NAMES = 3


def summary_lines(
    results: dict[str, list[RequirementRecord]],
    cases: Sequence[CaseRecord],
    *,
    rounding: Mapping[str, Mapping[str, Any]],
    verbosity: int,
    width: int = 80,
    ranks: str = "",
) -> Iterator[Line]:
    """Yield a line on the ranks that the run was started on, if any, and the lines for each implementation.

    A quiet run (`-q`) has only verdicts. A verbose run (`-v`) has all failures, expected ones too, in full.
    """
    if ranks:
        yield ranks, {}
    for implementation, requirements in results.items():
        tested = [case for case in cases if case.implementation == implementation]
        if verbosity >= 0:
            yield implementation, {"bold": True}
            yield from _failure_lines(requirements, tested, verbose=verbosity > 0, width=width)
            yield from _chapter_lines(requirements, width)
            yield from _drawn_lines(tested)
            yield from _not_run_lines(requirements, tested, width)
        yield _verdict_line(implementation, requirements, len(tested), rounding.get(implementation))


def _failure_lines(
    requirements: Sequence[RequirementRecord], cases: Sequence[CaseRecord], *, verbose: bool, width: int
) -> Iterator[Line]:
    failed = sorted(filter(_failed, requirements), key=_severity)
    expected = [requirement for requirement in failed if requirement.expected]
    unexpected = [requirement for requirement in failed if not requirement.expected]
    failures: dict[str, list[CaseRecord]] = {}
    for case in cases:
        if not case.passed:
            failures.setdefault(case.requirement, []).append(case)
    groups = [[requirement] for requirement in failed] if verbose else _by_cause(unexpected, failures)
    for group in groups if verbose else groups[:MAX_FAILURES]:
        yield from _failure(group, failures, width, verbose=verbose)
    if hidden := 0 if verbose else sum(map(len, groups[MAX_FAILURES:])):
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


def _by_cause(
    requirements: Sequence[RequirementRecord], failures: Mapping[str, Sequence[CaseRecord]]
) -> list[list[RequirementRecord]]:
    """Group requirements whose worst failures have one cause."""
    groups: dict[tuple[str, str], list[RequirementRecord]] = {}
    for requirement in requirements:
        worst = _worst(failures[requirement.requirement])
        groups.setdefault((worst.outcome, worst.cause), []).append(requirement)
    return list(groups.values())


def _worst(cases: Sequence[CaseRecord]) -> CaseRecord:
    outcome = Outcome.worst(case.outcome for case in cases)
    return next(case for case in cases if case.outcome is outcome)


def _failure(
    requirements: Sequence[RequirementRecord],
    failures: Mapping[str, Sequence[CaseRecord]],
    width: int,
    *,
    verbose: bool,
) -> Iterator[Line]:
    """Yield the failure of a requirement, and the names of further ones with the same cause."""
    requirement, *others = requirements
    failed = failures[requirement.requirement]
    worst = _worst(failed)
    name = f"{requirement.requirement}[{worst.case}]" if worst.case else requirement.requirement
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    if others:
        cases = sum(len(failures[each.requirement]) for each in requirements)
        more = f" and {len(others)} more requirement{'s'[: len(others) > 1]}, {cases} cases"
    expected = " as expected" if requirement.expected else ""
    colours = {"yellow": requirement.expected, "red": not requirement.expected}
    heading = f"  {requirement.level} {worst.outcome}{expected}: {name}"
    if others and len(heading + more) > width:
        yield heading, colours
        yield f"   {more}", colours
    else:
        yield heading + more, colours
    max_lines = None if verbose else MAX_DETAIL_LINES
    for line in textwrap.wrap(worst.detail, width - 4, max_lines=max_lines, placeholder=" […]"):
        yield f"    {line}", {}
    if others:
        names = [other.requirement for other in others[:MAX_NAMES]]
        hidden = f" and {len(others) - MAX_NAMES} more" if len(others) > MAX_NAMES else ""
        for line in textwrap.wrap(f"also {', '.join(names)}{hidden}", width - 4):
            yield f"    {line}", {}
    for case in failed if verbose else [worst]:
        if case.script:
            yield f"    script: {case.script}{f' (it {case.script_ends})' if case.script_ends else ''}", {}


def _chapter_lines(requirements: Sequence[RequirementRecord], width: int) -> Iterator[Line]:
    chapters = dict.fromkeys(requirement.requirement.partition("/")[0] for requirement in requirements)
    for chapter in chapters:
        members = [requirement for requirement in requirements if requirement.requirement.startswith(f"{chapter}/")]
        kept = [member for member in members if member.standing is Standing.KEPT]
        line = f"  {chapter:<20}{len(kept):>3} of {len(members):>2} kept"
        if refusing := sum(member.outcome is Outcome.REFUSES for member in kept):
            line += f", {refusing} by refusing"
        if others := _others(members):
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


def _not_run_lines(
    requirements: Sequence[RequirementRecord], cases: Sequence[CaseRecord], width: int
) -> Iterator[Line]:
    for reason, number in reasons_not_run(requirements, cases).items():
        for line in textwrap.wrap(f"not run: {reason} ({number} requirements)", width - 2, subsequent_indent="  "):
            yield f"  {line}", {"yellow": True}


def _verdict_line(
    implementation: str, requirements: Sequence[RequirementRecord], cases: int, rounding: Mapping[str, Any] | None
) -> Line:
    conclusion = verdict(requirements)
    levels = standings_by_level(requirements)
    numbers = [f"{level} {_numbers(counts)}" for level, counts in levels.items() if any(counts.values())]
    line = f"{implementation}: {conclusion} ({'; '.join([*numbers, f'{cases} cases'])})"
    if rounding:
        line += f" {describe_rounding(rounding)}"
    return line, {"bold": True, "green": conclusion == "conformant", "red": conclusion != "conformant"}


def _failed(requirement: RequirementRecord) -> bool:
    return not requirement.passed and requirement.outcome is not Outcome.NOT_RUN


def _severity(requirement: RequirementRecord) -> tuple[bool, int]:
    """Return a sort key: MUSTs first, then the worst outcome."""
    return requirement.level != Level.MUST, list(Outcome).index(requirement.outcome)


def _numbers(counts: Mapping[str, int]) -> str:
    """Return the counts by standing, which add up."""
    others = [f", {number} {standing}" for standing, number in counts.items() if number and standing != Standing.KEPT]
    return f"{counts[Standing.KEPT]} of {sum(counts.values())} kept{''.join(others)}"


def _others(requirements: Sequence[RequirementRecord]) -> str:
    """Return the counts of those that are not kept: the broken by outcome, then the others."""
    broken = count(requirement for requirement in requirements if requirement.standing is Standing.BROKEN)
    counts = [(broken[outcome], outcome.value) for outcome in Outcome]
    counts += [(number, name) for name, number in standings(requirements).items() if name not in {"kept", "broken"}]
    return ", ".join(f"{number} {name}" for number, name in counts if number)
