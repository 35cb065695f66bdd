"""A conformance session: collects the results of cases, writes the record, and prints the summary.

Results are user properties of pytest reports, which xdist sends to the controller. Workers of xdist write no record.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from inbackward_conformance.adapters.declarations import Declarations
from inbackward_conformance.adapters.find import find_implementation, version_of
from inbackward_conformance.outcome import Finding, Outcome
from inbackward_conformance.plugin.case import PROPERTY, attach_case, attached_case, mark_expected, with_script
from inbackward_conformance.plugin.crash_note import read_crash_note
from inbackward_conformance.report.expected import Expectations, find_covering, find_stale
from inbackward_conformance.report.record import CaseRecord, RecordFile, RequirementRecord, summarize
from inbackward_conformance.report.terminal import summary_lines
from inbackward_conformance.specification import requirement_id, specification

if TYPE_CHECKING:
    from inbackward_conformance.ranks.job import GivenRanks

RANKS = pytest.StashKey["GivenRanks"]()
"""The ranks that the run was started on; there are none if a pool of this machine is to start them."""

CRASH_NOTE_KEY = "inbackward_crash_note"
"""The key in `workerinput` of the path of a worker's crash note."""


SAME_ERROR = "with the same error"
"""What pytest counts errors as whose cause it has printed."""


class ConformanceSession:
    """The pytest plugin that records a run."""

    def __init__(self, config: pytest.Config, implementations: list[str], expectations: Expectations) -> None:
        self.implementations = implementations
        self.expectations = expectations
        self._config = config
        self._cases: dict[str, CaseRecord] = {}
        self._results: dict[str, list[RequirementRecord]] = {}
        self._stale: list[str] = []
        self._first_of_cause: dict[tuple[str, str], str] = {}
        self._file: RecordFile | None = None
        self._crash_notes: TemporaryDirectory[str] | None = None
        self._incomplete = False
        self._interrupted = False

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Open the record."""
        path = self._config.getoption("conformance_report")
        if path and not self._in_worker:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = path.open("w", encoding="utf-8")
            except OSError as error:
                raise pytest.UsageError(
                    f"--conformance-report {path}: cannot be written ({error.strerror}); check the path"
                ) from error
            option = self._config.getoption
            profile = option("hypothesis_profile", None) or "quick"
            versions = {name: version_of(name) for name in self.implementations}
            self._file = RecordFile(
                file,
                versions,
                device=option("device"),
                seed=option("conformance_seed"),
                profile=profile,
                optimizers={
                    name: [own.name for own in declared.own_optimizers]
                    for name, declared in self._declared.items()
                    if declared.own_optimizers
                },
                rounding=self._rounding,
                world_size=self._ranks.world_size if self._ranks else None,
                dry_run=self._is_dry,
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a case after its last phase."""
        if not self._in_worker and (case := attached_case(report)):
            earlier = self._cases.get(report.nodeid)
            if earlier is None or Outcome.worst([earlier.outcome, case.outcome]) is not earlier.outcome:
                self._cases[report.nodeid] = case
        if report.when == "teardown" and report.nodeid in self._cases and self._file:
            self._file.write_case(self._cases[report.nodeid])

    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """Count a failure by its outcome.

        pytest prints what it counts as failed in full and again after the verdict. That is useful only for the
        traceback of an error, and for the first of several errors with one cause.
        """
        case = attached_case(report) if report.failed else None
        if case is None:
            return None
        if case.outcome is Outcome.ERROR:
            first = self._first_of_cause.setdefault((case.implementation, case.cause), report.nodeid)
            return None if first == report.nodeid else (SAME_ERROR, "F", ("ERROR", {"red": True}))
        return case.outcome, "F", (case.outcome.upper(), {"red": True})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a collection error."""
        self._incomplete |= report.failed

    def pytest_deselected(self) -> None:
        """Note that tests were deselected."""
        self._incomplete = True

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Pass the path of its crash note to a worker of xdist."""
        self._crash_notes = self._crash_notes or TemporaryDirectory(prefix="inbackward-")
        node.workerinput[CRASH_NOTE_KEY] = str(Path(self._crash_notes.name, node.gateway.id))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Note that a worker of xdist deselected tests or failed to collect them."""
        self._incomplete |= getattr(node, "workeroutput", {}).get(PROPERTY, False)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Record a case whose worker died; xdist replaces the worker."""
        module, _, function = crashitem.partition("::")
        # The id begins with "::" if the module is the argument of the run.
        note = read_crash_note(Path(self._crash_notes.name), crashitem) if self._crash_notes else {}
        name = note.pop("requirement", requirement_id(module or self._config.args[0], function))
        requirement = specification().get(name)
        if requirement is None:
            return
        parameters = function.removesuffix("]").partition("[")[2]
        names = [name for name in self.implementations if f"{parameters}-".startswith(f"{name}-")]
        implementation = max(names, key=len, default="")
        case = parameters.removeprefix(implementation).removeprefix("-")
        detail = note.pop("detail", "") or str(report.longrepr)
        finding = Finding(Outcome.CRASHES, detail, passed=False)
        entry = find_covering(self.expectations.get(implementation, []), requirement.id, finding)
        if entry:
            mark_expected(report, finding, entry)
        crashed = CaseRecord(
            implementation,
            requirement.id,
            case,
            requirement.level,
            finding.outcome,
            False,
            finding.detail,
            expected=bool(entry),
            **note,
        )
        self._cases[crashitem] = with_script(crashed, self._config)
        attach_case(report, self._cases[crashitem])
        if self._file:
            self._file.write_case(self._cases[crashitem])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Finish the record, and fail the run if an expected failure no longer fails."""
        if self._in_worker:
            self._config.workeroutput[PROPERTY] = self._incomplete  # type: ignore[attr-defined]
        if self._crash_notes:
            self._crash_notes.cleanup()
        if self._in_worker or not self._cases:
            return
        self._interrupted = session.exitstatus not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}
        for name in self.implementations:
            cases = [case for case in self._cases.values() if case.implementation == name]
            self._results[name] = summarize(name, cases, self._applicable(), self._config.getoption("device"))
            if self._whole:
                self._stale += [
                    f"{name}: {entry.requirement} no longer fails with {entry.cause!r}; remove the entry"
                    for entry in find_stale(self.expectations.get(name, []), cases)
                ]
        if self._stale and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._file and not self._interrupted:
            self._file.finish(self._results, selection=self._selection, whole=self._whole)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the summary."""
        if not self._results:
            return
        terminalreporter.write_sep("=", "inbackward conformance")
        lines = summary_lines(
            self._results,
            list(self._cases.values()),
            rounding=self._rounding,
            verbosity=terminalreporter.verbosity,
            width=shutil.get_terminal_size().columns,
            ranks=self._ranks.description if self._ranks else "",
        )
        for line, markup in lines:
            terminalreporter.write_line(line, **markup)
        for entry in self._stale:
            terminalreporter.write_line(f"stale expected failure: {entry}", red=True, bold=True)

    @cached_property
    def _declared(self) -> dict[str, Declarations]:
        return {name: Declarations.of(find_implementation(name)) for name in self.implementations}

    @property
    def _rounding(self) -> dict[str, dict[str, Any]]:
        """The rounding of each implementation that declares one."""
        declared = {name: declarations.rounding for name, declarations in self._declared.items()}
        return {name: asdict(rounding) for name, rounding in declared.items() if rounding.size}

    @property
    def _in_worker(self) -> bool:
        return hasattr(self._config, "workerinput")

    @property
    def _ranks(self) -> GivenRanks | None:
        return self._config.stash.get(RANKS, None)

    @property
    def _is_dry(self) -> bool:
        return self._ranks is not None and self._ranks.is_dry

    @property
    def _whole(self) -> bool:
        """Whether all cases of the chapters were selected, and neither run dry nor interrupted."""
        option = self._config.option
        selected = any("::" in argument for argument in self._config.args)
        return not (self._interrupted or self._incomplete or selected or option.maxfail or self._is_dry)

    @property
    def _chapters(self) -> set[str]:
        return {case.requirement.partition("/")[0] for case in self._cases.values()}

    @property
    def _selection(self) -> str:
        return ("" if self._whole else "a part of ") + ", ".join(sorted(self._chapters))

    def _applicable(self) -> list[str]:
        """Return the requirements that count for the verdict: those of the chapters that ran.

        If cases were selected, the other chapters count too: with `--distributed` the distributed ones.
        """
        chapters, known = self._chapters, specification().values()
        if not self._whole:
            distributed = self._config.getoption("distributed")
            chapters |= {requirement.chapter for requirement in known if requirement.is_distributed == distributed}
        return [requirement.id for requirement in known if requirement.chapter in chapters]
