"""Checks an implementation with plans that Hypothesis draws and, if one fails, shrinks."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hypothesis import given, seed
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from inbackward_conformance.checking.state_machine import TrainingStateMachine
from inbackward_conformance.outcome import BrokenPromise, NotOffered, NotRun, Outcome, OutOfTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from hypothesis import settings
    from hypothesis.strategies import SearchStrategy

    from inbackward_conformance.checking.check import Check
    from inbackward_conformance.plan import Plan

SHRINKABLE = frozenset({Outcome.DIVERGES, Outcome.FAILS, Outcome.REFUSES})
"""Other failures are not shrunk: if a plan hangs or crashes, each smaller one costs a time limit or a process."""


class Drawn:
    """The fixture that a requirement calls with a strategy.

    A plan that the implementation does not offer is skipped; if all are, the case is `not offered`.

    Attributes:
        plans: number of plans that were run, including those of shrinking.
    """

    def __init__(
        self, check: Check, settings: settings, seed: int, limit: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.plans = 0
        self._check = check
        self._settings = settings
        self._seed = seed
        self._limit = limit
        self._broken: BrokenPromise | None = None
        self._not_offered: NotOffered | None = None
        self._any_passed = False

    def __call__(self, plans: SearchStrategy[Plan], *, standard_may_raise: bool = False) -> None:
        """Check the implementation with plans that are drawn from `plans`; `standard_may_raise` is as in `Check`.

        Raises:
            BrokenPromise: a plan failed; this is the smallest that does, and the detail ends with it.
            NotOffered: no plan was offered.
        """

        def check(plan: Plan) -> None:
            self.plans += 1
            with self._handle_errors(plan):
                self._check(plan, standard_may_raise=standard_may_raise)

        self._search(seed(self._seed)(self._settings(given(plans)(check))))

    def live(self) -> None:
        """Check the implementation with `TrainingStateMachine`. Raises the same errors as a call."""

        def begin() -> TrainingStateMachine:
            self.plans += 1
            return TrainingStateMachine(self._check, self._handle_errors)

        self._search(lambda: run_state_machine_as_test(seed(self._seed)(begin), settings=self._settings))  # type: ignore[arg-type]

    def _search(self, search: Callable[[], Any]) -> None:
        try:
            with temporary_home():
                search()
        except _StopSearch as stop:
            raise stop.error from stop.error.__cause__
        except Flaky as error:
            if self._broken is None:
                raise
            finding = self._broken.finding
            detail = f"not every time: {finding.detail}"
            raise BrokenPromise(replace(finding, detail=detail), self._broken.plan) from error
        if self._not_offered and not self._any_passed:
            raise self._not_offered

    @contextmanager
    def _handle_errors(self, plan: Plan) -> Iterator[None]:
        """Limit the time of a plan, and let Hypothesis see only errors of plans to shrink."""
        try:
            with self._limit():
                yield
            self._any_passed = True
        except NotOffered as error:
            self._not_offered = error
        except OutOfTime as error:
            raise _StopSearch(OutOfTime(f"{error}; drawn: {self._check.plan or plan!r}")) from None
        except NotRun as error:
            raise _StopSearch(error) from error
        except BrokenPromise as error:
            finding = replace(error.finding, detail=f"{error.finding.detail}; drawn: {error.plan!r}")
            self._broken = BrokenPromise(finding, error.plan)
            if finding.outcome not in SHRINKABLE:
                raise _StopSearch(self._broken) from error
            raise self._broken from error


@contextmanager
def temporary_home() -> Iterator[None]:
    """Give Hypothesis a temporary folder; even without a database it writes into `.hypothesis` where pytest runs."""
    with TemporaryDirectory(prefix="inbackward-") as folder:
        set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            set_hypothesis_home_dir(None)  # the default again


class _StopSearch(BaseException):
    """Ends the search with an error; a BaseException, since Hypothesis does not catch those."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error
