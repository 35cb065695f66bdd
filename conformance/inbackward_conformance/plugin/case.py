"""The result of a case on its pytest report, and how pytest counts and prints it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Finding, Outcome
from inbackward_conformance.report.record import CaseRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from inbackward_conformance.report.expectations_file import ExpectedFailure

PROPERTY = "inbackward_case"
"""The user property that carries the record of a case to the controller of xdist."""

SECONDS_OF_A_SCRIPT = 120.0
"""The least time limit of a script, which loads torch, and on ranks starts processes that load it too."""


def attach_case(report: pytest.TestReport, case: CaseRecord) -> None:
    """Attach the record of a case to a report."""
    report.user_properties = [*report.user_properties, (PROPERTY, json.dumps(asdict(case)))]


def attached_case(report: pytest.TestReport) -> CaseRecord | None:
    """Return the record attached to a report; None if there is none."""
    text = dict(report.user_properties).get(PROPERTY)
    return CaseRecord.load(json.loads(str(text))) if text else None


def with_script(case: CaseRecord, config: pytest.Config) -> CaseRecord:
    """Write and run the script of a case that failed, with `--conformance-repro`; return the case with its path."""
    folder, seconds = config.getoption("conformance_repro"), config.getoption("case_seconds")
    if folder is None or case.passed or case.outcome is Outcome.ERROR:
        return case
    from inbackward_conformance.repro.reproduce import script_of  # noqa: PLC0415 (imported only for a failure)

    script, ends = script_of(case, str(config.getoption("device")), folder, max(seconds, SECONDS_OF_A_SCRIPT))
    return replace(case, script=script, script_ends=ends)


def worst_finding(findings: Sequence[Finding]) -> Finding:
    """Return the first finding with the worst outcome; CONFORMS if there are none."""
    outcome = Outcome.worst(finding.outcome for finding in findings) if findings else Outcome.CONFORMS
    return next((finding for finding in findings if finding.outcome is outcome), Finding(outcome))


def mark_expected(report: pytest.TestReport, finding: Finding, entry: ExpectedFailure) -> None:
    """Make pytest count a case as an expected failure."""
    report.outcome = "skipped"
    report.wasxfail = f"reason: {finding.outcome}: {entry.cause} {entry.link or entry.finding}"


def mark_finding(report: pytest.TestReport, finding: Finding) -> None:
    """Make pytest count a case by its finding and print the finding on one line, without a traceback."""
    if finding.passed and finding.outcome in {Outcome.NOT_OFFERED, Outcome.NOT_RUN}:
        report.outcome = "skipped"
        report.longrepr = (report.location[0], report.location[1] or 0, f"{finding.outcome}: {finding.detail}")
    elif not finding.passed:
        report.outcome = "failed"
        if finding.outcome is not Outcome.ERROR:
            report.longrepr = f"{finding.outcome}: {finding.detail}"
