"""One case: what it came to, as a property of its pytest report, and how pytest counts and prints it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Finding, Outcome
from inbackward_conformance.report.record import CaseRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from inbackward_conformance.report.expected import ExpectedFailure

PROPERTY = "inbackward_case"
"""The user property that brings a case to the controller of xdist."""


def attach_case(report: pytest.TestReport, case: CaseRecord) -> None:
    """Put `case` on a report."""
    report.user_properties = [*report.user_properties, (PROPERTY, json.dumps(asdict(case)))]


def case_on(report: pytest.TestReport) -> CaseRecord | None:
    """Return the case that `attach_case` has put on a report; None: it has put none there."""
    attached = dict(report.user_properties).get(PROPERTY)
    return CaseRecord.load(json.loads(str(attached))) if attached else None


def with_script(case: CaseRecord, config: pytest.Config) -> CaseRecord:
    """Return a case with its script, if it failed and a script was asked for."""
    folder = config.getoption("conformance_repro")
    if folder is None or case.passed or case.outcome is Outcome.ERROR:
        return case
    from inbackward_conformance.repro.reproduce import script_of  # noqa: PLC0415 (a run that goes well needs none)

    return replace(case, script=script_of(case, str(config.getoption("device")), folder))


def worst(findings: Sequence[Finding]) -> Finding:
    """Return the first finding of the worst outcome; without findings a case conforms."""
    outcome = Outcome.worst(finding.outcome for finding in findings) if findings else Outcome.CONFORMS
    return next((finding for finding in findings if finding.outcome is outcome), Finding(outcome))


def excuse(report: pytest.TestReport, finding: Finding, entry: ExpectedFailure) -> None:
    """Make pytest count an expected failure as one."""
    report.outcome = "skipped"
    report.wasxfail = f"reason: {finding.outcome}: {entry.cause} {entry.link}"


def count_as(report: pytest.TestReport, finding: Finding) -> None:
    """Make pytest count and print a case by its finding: one line, without a traceback of the suite's."""
    if finding.passed and finding.outcome in {Outcome.NOT_OFFERED, Outcome.NOT_RUN}:
        report.outcome = "skipped"
        report.longrepr = (report.location[0], report.location[1] or 0, f"{finding.outcome}: {finding.detail}")
    elif not finding.passed:
        report.outcome = "failed"
        if finding.outcome is not Outcome.ERROR:
            report.longrepr = f"{finding.outcome}: {finding.detail}"
