"""Trains one model by the standard loop and one by an implementation, and compares them after each event."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from inbackward_conformance.binding import bind_event
from inbackward_conformance.outcome import BrokenPromise, Finding, Outcome
from inbackward_conformance.plan.events import Attach
from inbackward_conformance.training.compare import compare
from inbackward_conformance.training.in_backward import InBackward
from inbackward_conformance.training.random_numbers import seed_random_numbers
from inbackward_conformance.training.standard_loop import StandardLoop, unusable_plan_error
from inbackward_conformance.training.trace import Trace
from inbackward_conformance.training.train import TracedRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from inbackward_conformance.adapters.implementation import Implementation
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.plan.events import Event


class Lockstep:
    """Two equal models that run the same events. The models must not draw random numbers.

    Args:
        about_to_run: called with the plan before each event.
        not_compared: called with the finding of each event after which a state cannot be compared.
        diverged: called with the plan and the trace of the standard loop before a divergence is raised; it may raise
            another error if the standard loop is to blame.

    Attributes:
        plan: the events so far.
    """

    def __init__(
        self,
        plan: Plan,
        implementation: Implementation,
        device: str,
        *,
        about_to_run: Callable[[Plan], None],
        not_compared: Callable[[Finding], None],
        diverged: Callable[[Plan, Trace], None],
    ) -> None:
        self.plan = plan
        self._about_to_run = about_to_run
        self._not_compared = not_compared
        self._diverged = diverged
        self._implementation = implementation
        self._standard = _run(plan, StandardLoop(implementation), device)
        self._observed = _run(plan, InBackward(implementation), device)

    def attach(self) -> None:
        """Attach the assignments of the plan. Raises the same errors as `execute`."""
        self._execute_both(Attach())

    def execute(self, event: Event) -> None:
        """Execute one more event on both, and compare them.

        Raises:
            BrokenPromise: they differ.
            NotOffered: the standard loop raised with one of the implementation's own optimizer classes.
            RuntimeError: the standard loop raised with one of torch's.
        """
        event = bind_event(event, self.plan, self._implementation)
        self.plan = replace(self.plan, events=(*self.plan.events, event))
        self._execute_both(event)

    def _execute_both(self, event: Event) -> None:
        self._about_to_run(self.plan)
        for traced in (self._standard, self._observed):
            with torch.random.fork_rng(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                traced.execute(event)
        if raised := self._standard.trace.raised:
            raise unusable_plan_error(self._implementation, self.plan, raised)
        tolerance = self._implementation.declared.rounding.size
        finding = compare(_latest(self._standard.trace), _latest(self._observed.trace), tolerance=tolerance)
        if not finding.passed:
            if finding.outcome is Outcome.DIVERGES:
                self._diverged(self.plan, self._standard.trace)
            assert finding.difference
            difference = replace(finding.difference, event=len(self._observed.trace.snapshots) - 1)
            raise BrokenPromise(replace(finding, difference=difference), self.plan)
        if finding.outcome is Outcome.NOT_RUN:
            self._not_compared(finding)


def _run(plan: Plan, method: StandardLoop | InBackward, device: str) -> TracedRun:
    with torch.random.fork_rng():
        seed_random_numbers(plan.seed, device)
        return TracedRun(plan, method, device)


def _latest(trace: Trace) -> Trace:
    """Return the trace of the last event alone."""
    start, last = [trace.start, *trace.snapshots][-2:]
    return Trace(start, [last], trace.raised)
