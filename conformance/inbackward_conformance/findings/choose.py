"""Chooses for each finding the shortest script that shows it."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from inbackward_conformance.findings.shown import Shown, ShownFindings, lines_of_code
from inbackward_conformance.outcome import Finding
from inbackward_conformance.plan.events.checkpoint import FOLDER
from inbackward_conformance.report.expected import find_covering
from inbackward_conformance.repro.failure import CannotWrite, Failure
from inbackward_conformance.repro.from_record import failure_of
from inbackward_conformance.repro.reproduce import source_of_failure
from inbackward_conformance.repro.run_script import run_script, unlike_the_record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from inbackward_conformance.report.expectations_file import ExpectationsFile, KnownFinding
    from inbackward_conformance.report.read_record import RecordedRun
    from inbackward_conformance.report.record import CaseRecord

SECONDS = 120
"""The time limit of a script; ranks load torch once each."""

MAX_TRIED = 6
"""So many scripts of a finding are run before it counts as one that no script shows."""


class NotShown(LookupError):
    """No script shows a finding; the message says which were tried, and how they end."""


@dataclass(frozen=True)
class _Candidate:
    case: CaseRecord
    failure: Failure
    source: str


def choose(
    file: ExpectationsFile, runs: Sequence[RecordedRun], folder: Path, tell: Callable[[str], None]
) -> tuple[ShownFindings, list[str]]:
    """Write the shortest script of each finding into a folder of findings.

    Args:
        file: the expected failures, with the findings.
        runs: the records of the implementation, all with one torch and on one device.
        folder: the folder of findings.
        tell: is given a line on each finding, when its script is there.

    Returns:
        What shows the findings, and a message for each that no script shows.
    """
    run, name = runs[0], file.implementation
    failed = [case for each in runs for case in each.cases if case.implementation == name and not case.passed]
    cases = [replace(case, plan=_anywhere(case.plan), detail=_anywhere(case.detail)) for case in failed]
    shown: list[Shown] = []
    sources: dict[str, str] = {}
    missing, elsewhere = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # of processes that run scripts
        found: list[tuple[KnownFinding, Future[tuple[_Candidate, str]]]] = []
        for finding in file.findings:
            if any(entry.holds_for(run.device.partition(":")[0], run.torch) for entry in file.explained_by(finding)):
                candidates = _candidates(_cases_of(finding, file, cases), run.device)
                found.append((finding, pool.submit(_first_that_shows, *candidates)))
            else:
                elsewhere.append(finding.id)
        for finding, result in found:
            try:
                candidate, ends = result.result()
            except NotShown as error:
                missing.append(f"{name}: {finding.id}: {error}")
                tell(missing[-1])
                continue
            kept = replace(candidate.case, seconds=0.0, script="", script_ends="")
            shown.append(Shown(finding.id, finding.title, kept, ends))
            sources[finding.id] = candidate.source
            tell(f"{name}: {finding.id}: {lines_of_code(candidate.source)} lines, {candidate.case.requirement}")
    chosen = ShownFindings(name, run.versions[name], run.torch, run.device, tuple(shown), tuple(elsewhere))
    chosen.write(folder)
    for path in (folder / chosen.name).glob("*.py"):
        path.unlink()
    for each in shown:
        chosen.script(folder, each).write_text(sources[each.id], encoding="utf-8")
    return chosen, missing


def _anywhere(text: str) -> str:
    """Return the text without folders of the machine that it was written on."""
    return FOLDER.sub("'folder'", text)


def _cases_of(finding: KnownFinding, file: ExpectationsFile, cases: Sequence[CaseRecord]) -> list[CaseRecord]:
    """Return the first case of each requirement and cause that the finding explains."""
    firsts: dict[tuple[str, str], CaseRecord] = {}
    for case in cases:
        entry = find_covering(file.entries, case.requirement, Finding(case.outcome, case.detail, passed=False))
        if entry and entry.finding == finding.id:
            firsts.setdefault((entry.requirement, entry.cause), case)
    return list(firsts.values())


def _candidates(cases: Sequence[CaseRecord], device: str) -> tuple[list[_Candidate], list[str]]:
    """Return the scripts of cases, the shortest first and those on ranks last, and why others have none."""
    nothing = "none of its requirements fails in these records; run them all, or remove the finding"
    candidates, reasons = [], [nothing] * (not cases)
    for case in cases:
        try:
            failure = failure_of(case, device)
            candidates.append(_Candidate(case, failure, source_of_failure(failure)))
        except CannotWrite as error:
            reasons.append(f"{case.requirement} has no script: {error}")
    candidates.sort(key=lambda each: (bool(each.failure.plan and each.failure.plan.ranks), lines_of_code(each.source)))
    return candidates, reasons


def _first_that_shows(candidates: Sequence[_Candidate], reasons: list[str]) -> tuple[_Candidate, str]:
    """Return the first script that ends as its record says, and its error."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "script.py")
        for candidate in candidates[:MAX_TRIED]:
            path.write_text(candidate.source, encoding="utf-8")
            end = run_script(path, SECONDS)
            unlike = unlike_the_record(end, candidate.failure)
            if not unlike:
                return candidate, end.error or str(end)
            reasons.append(f"the script of {candidate.case.requirement} {unlike}")
    raise NotShown("; ".join(reasons))


def is_as_shown(shown: Shown, device: str, path: Path, python: str, imports: Sequence[str] = ()) -> str:
    """Run the script of a finding with another Python, and return how it ends, if otherwise than it did; else "".

    The script can import what that Python can, and what the folders `imports` hold.
    """
    return unlike_the_record(run_script(path, SECONDS, python, imports), failure_of(shown.case, device))
