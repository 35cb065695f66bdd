"""One conformance run: gathers what cases came to, writes the record, and prints the summary at the end.

Cases travel as a user property of their pytest report, which xdist brings to the controller; only the controller, or
the one process there is, keeps a record.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from inbackward_conformance.adapters.find import version_of
from inbackward_conformance.outcome import Finding, Outcome
from inbackward_conformance.plugin.case import PROPERTY, attach_case, case_on, excuse, with_script
from inbackward_conformance.plugin.crash_note import read_crash_note
from inbackward_conformance.report.expected import Expectations, covering, stale
from inbackward_conformance.report.record import CaseRecord, RecordFile, RequirementRecord, summarize
from inbackward_conformance.report.terminal import summary_lines
from inbackward_conformance.specification import requirement_id, specification

NOTES_OF_WORKER = "inbackward_crash_note"
"""The key under which a worker of xdist is told where to write what it is about to run."""


class ConformanceSession:
    """The plugin that is registered where implementations are tested."""

    def __init__(self, config: pytest.Config, implementations: list[str], expectations: Expectations) -> None:
        self.implementations = implementations
        self.expectations = expectations
        self._config = config
        self._cases: dict[str, CaseRecord] = {}
        self._results: dict[str, list[RequirementRecord]] = {}
        self._complaints: list[str] = []
        self._file: RecordFile | None = None
        self._crash_notes: TemporaryDirectory[str] | None = None
        self._left_out = False
        self._died = False

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Open the record."""
        path = self._config.getoption("conformance_report")
        if path and not self._in_worker:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = path.open("w", encoding="utf-8")
            except OSError as error:
                raise pytest.UsageError(f"--conformance-report {path}: cannot be written ({error.strerror})") from error
            option = self._config.getoption
            profile = option("hypothesis_profile", None) or "quick"
            versions = {name: version_of(name) for name in self.implementations}
            self._file = RecordFile(
                file, versions, device=option("device"), seed=option("conformance_seed"), profile=profile
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a case when its last phase is over."""
        if not self._in_worker and (case := case_on(report)):
            known = self._cases.get(report.nodeid)
            if known is None or Outcome.worst([known.outcome, case.outcome]) is not known.outcome:
                self._cases[report.nodeid] = case
        if report.when == "teardown" and report.nodeid in self._cases and self._file:
            self._file.write_case(self._cases[report.nodeid])

    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """Count a broken promise as what it came to.

        What pytest counts as failed it prints in full, and once more behind the verdict: of a broken promise it knows
        no more than the summary, of an error it knows the traceback.
        """
        case = case_on(report) if report.failed else None
        if case is None or case.outcome is Outcome.ERROR:
            return None
        return case.outcome, "F", (case.outcome.upper(), {"red": True})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember that something could not be collected."""
        self._left_out |= report.failed

    def pytest_deselected(self) -> None:
        """Remember that something was collected and is not to run."""
        self._left_out = True

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of xdist where to write what it is about to run."""
        self._crash_notes = self._crash_notes or TemporaryDirectory(prefix="inbackward-")
        node.workerinput[NOTES_OF_WORKER] = str(Path(self._crash_notes.name, node.gateway.id))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Learn the same of a worker of xdist."""
        self._left_out |= getattr(node, "workeroutput", {}).get(PROPERTY, False)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Record a case whose process died; xdist starts another worker and goes on."""
        module, _, function = crashitem.partition("::")
        # The id of a test in a module that is itself the argument of the run begins with "::".
        found = read_crash_note(Path(self._crash_notes.name), crashitem) if self._crash_notes else {}
        name = found.pop("requirement", requirement_id(module or self._config.args[0], function))
        requirement = specification().get(name)
        if requirement is None:
            return
        parameters = function.removesuffix("]").partition("[")[2]
        owner = max((n for n in self.implementations if f"{parameters}-".startswith(f"{n}-")), key=len, default="")
        case = parameters.removeprefix(owner).removeprefix("-")
        finding = Finding(Outcome.CRASHES, str(report.longrepr), passed=False)
        entry = covering(self.expectations.get(owner, []), requirement.id, finding)
        if entry:
            excuse(report, finding, entry)
        died = CaseRecord(
            owner,
            requirement.id,
            case,
            requirement.level,
            finding.outcome,
            False,
            finding.detail,
            expected=bool(entry),
            **found,
        )
        self._cases[crashitem] = with_script(died, self._config)
        attach_case(report, self._cases[crashitem])
        if self._file:
            self._file.write_case(self._cases[crashitem])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Close the record, and fail the run where an expected failure no longer fails."""
        if self._in_worker:
            self._config.workeroutput[PROPERTY] = self._left_out  # type: ignore[attr-defined]
        if self._crash_notes:
            self._crash_notes.cleanup()
        if self._in_worker or not self._cases:
            return
        self._died = session.exitstatus not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}
        for name in self.implementations:
            cases = [case for case in self._cases.values() if case.implementation == name]
            self._results[name] = summarize(name, cases, self._applicable(), self._config.getoption("device"))
            if self._whole:
                self._complaints += [
                    f"{name}: {entry.requirement} no longer fails with {entry.cause!r}; remove the entry"
                    for entry in stale(self.expectations.get(name, []), cases)
                ]
        if self._complaints and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._file and not self._died:
            self._file.finish(self._results, selection=self._selection, whole=self._whole)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a line for each chapter and a verdict for each implementation."""
        if not self._results:
            return
        terminalreporter.write_sep("=", "inbackward conformance")
        lines = summary_lines(
            self._results,
            list(self._cases.values()),
            verbosity=terminalreporter.verbosity,
            width=shutil.get_terminal_size().columns,
        )
        for line, markup in lines:
            terminalreporter.write_line(line, **markup)
        for complaint in self._complaints:
            terminalreporter.write_line(f"stale expected failure: {complaint}", red=True, bold=True)

    @property
    def _in_worker(self) -> bool:
        return hasattr(self._config, "workerinput")

    @property
    def _whole(self) -> bool:
        """Whether every requirement of the chapters that the user named, with all its cases, was to run."""
        option = self._config.option
        picked = any("::" in argument for argument in self._config.args)
        return not (self._died or self._left_out or picked or option.maxfail)

    @property
    def _chapters(self) -> set[str]:
        return {case.requirement.partition("/")[0] for case in self._cases.values()}

    @property
    def _selection(self) -> str:
        return ("" if self._whole else "a part of ") + ", ".join(sorted(self._chapters))

    def _applicable(self) -> list[str]:
        """Return what a verdict rests on: the chapters that the user named, or, where cases were picked out, all.

        All are those that need ranks with `--distributed`, and the others without.
        """
        chapters = self._chapters
        if not self._whole:
            distributed = self._config.getoption("distributed")
            chapters |= {found.chapter for found in specification().values() if found.is_distributed == distributed}
        return [name for name, found in specification().items() if found.chapter in chapters]
