"""Trains one model by the standard loop and one by an implementation, and compares them after each event."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from inbackward_conformance.outcome import BrokenPromise
from inbackward_conformance.plan.events import Attach
from inbackward_conformance.training.compare import compare
from inbackward_conformance.training.in_backward import InBackward
from inbackward_conformance.training.random_numbers import seed_random_numbers
from inbackward_conformance.training.standard_loop import StandardLoop, proves_nothing
from inbackward_conformance.training.trace import Trace
from inbackward_conformance.training.train import TracedRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from inbackward_conformance.adapters.implementation import Implementation
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.plan.events import Event


class Lockstep:
    """Two models, the same to begin with, to which the same happens; the models draw no random numbers.

    Attributes:
        plan: what has happened to them so far.
    """

    def __init__(
        self, plan: Plan, implementation: Implementation, device: str, about_to_run: Callable[[Plan], None]
    ) -> None:
        self.plan = plan
        self._about_to_run = about_to_run
        self._implementation = implementation
        self._standard = _run(plan, StandardLoop(implementation), device)
        self._observed = _run(plan, InBackward(implementation), device)

    def attach(self) -> None:
        """Make the assignments of the plan; raises as `execute` does."""
        self._both(Attach())

    def execute(self, event: Event) -> None:
        """Carry one more event out on both, and compare them.

        Raises:
            BrokenPromise: they differ.
            NotOffered: the standard loop raised, with an optimizer class of the implementation's own.
            RuntimeError: it raised with one of torch's.
        """
        self.plan = replace(self.plan, events=(*self.plan.events, event))
        self._both(event)

    def _both(self, event: Event) -> None:
        self._about_to_run(self.plan)
        for traced in (self._standard, self._observed):
            with torch.random.fork_rng(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                traced.execute(event)
        if raised := self._standard.trace.raised:
            raise proves_nothing(self._implementation, self.plan, raised)
        finding = compare(_latest(self._standard.trace), _latest(self._observed.trace))
        if not finding.passed:
            raise BrokenPromise(finding, self.plan)


def _run(plan: Plan, method: StandardLoop | InBackward, device: str) -> TracedRun:
    with torch.random.fork_rng():
        seed_random_numbers(plan.seed, device)
        return TracedRun(plan, method, device)


def _latest(trace: Trace) -> Trace:
    """Return the part of a trace that belongs to the last event."""
    start, last = [trace.start, *trace.snapshots][-2:]
    return Trace(start, [last], trace.raised)
