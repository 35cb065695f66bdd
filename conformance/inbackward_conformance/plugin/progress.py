"""Shows where a run is, in one line of the terminal that is written anew after each case."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from inbackward_conformance.plugin.case import attached_case

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    Status = tuple[str, str, str | tuple[str, Mapping[str, bool]]]

SECONDS_BETWEEN = 0.1
"""A terminal is not written to more often than this."""

SECONDS_BEFORE_AN_ESTIMATE = 5
SECONDS_OF_A_MINUTE = 60


class Progress:
    """The pytest plugin that shows the progress, in the place of pytest's letters."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._total = 0
        self._done = 0
        self._place = ""
        self._started = self._written = time.monotonic()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_report_teststatus(self) -> Generator[None, Status, Status]:
        """Keep how a case is counted, and have no letter printed for it."""
        category, _, word = yield
        return category, "", word

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the number of cases of a run in one process."""
        self._begin(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Note the number of cases of a run on workers, of which each has collected all."""
        self._begin(len(ids))

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the line anew after each case."""
        if case := attached_case(report):
            self._place = f"{case.implementation}  {case.requirement}{f' [{case.case}]' * bool(case.case)}"
        if report.when != "teardown":
            return
        self._done += 1
        if time.monotonic() - self._written > SECONDS_BETWEEN:
            self._written = time.monotonic()
            self._reporter.rewrite(self._line(), erase=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Clear the line."""
        self._reporter.rewrite("", erase=True)

    def _begin(self, total: int) -> None:
        self._total = total
        self._started = time.monotonic()

    def _line(self) -> str:
        line = f"{self._done} of {self._total}{self._remaining()}  {self._place}"
        width: int = self._reporter._tw.fullwidth - 1  # noqa: SLF001 (pytest has no public name for it)
        return line if len(line) <= width else line[: width - 1] + "…"

    def _remaining(self) -> str:
        """Return about how long the rest takes, if it takes as long for each case as those that are done."""
        elapsed = time.monotonic() - self._started
        if elapsed < SECONDS_BEFORE_AN_ESTIMATE:
            return ""
        seconds = elapsed / self._done * max(self._total - self._done, 0)
        if seconds < SECONDS_OF_A_MINUTE:
            return ", less than a minute left"
        return f", about {round(seconds / SECONDS_OF_A_MINUTE)} min left"


def is_wanted(reporter: pytest.TerminalReporter) -> bool:
    """Return whether a person is looking: at a terminal, not in CI, and without `-v`, which prints a line a case."""
    return bool(reporter.isatty) and reporter.verbosity <= 0 and not os.environ.get("CI")
