"""A model in training by the standard loop, and one by an implementation, event by event."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from inbackward_conformance.compare import compare
from inbackward_conformance.events import Attach
from inbackward_conformance.in_backward import InBackward
from inbackward_conformance.outcome import BrokenPromise
from inbackward_conformance.run import Run, seed_random_numbers
from inbackward_conformance.standard_loop import StandardLoop, proves_nothing
from inbackward_conformance.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from inbackward_conformance.adapter import Implementation
    from inbackward_conformance.events import Event
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.run import Method


class Live:
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
        """Make the assignments of the plan; raises as `let_happen` does."""
        self._both(Attach())

    def let_happen(self, event: Event) -> None:
        """Let one more event happen to both, and compare them.

        Raises:
            BrokenPromise: they differ.
            NotOffered: the standard loop raised, with an optimizer class of the implementation's own.
            RuntimeError: it raised with one of torch's.
        """
        self.plan = replace(self.plan, events=(*self.plan.events, event))
        self._both(event)

    def _both(self, event: Event) -> None:
        self._about_to_run(self.plan)
        for run in (self._standard, self._observed):
            with torch.random.fork_rng(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run.let_happen(event)
        if raised := self._standard.trace.raised:
            raise proves_nothing(self._implementation, self.plan, raised)
        finding = compare(_latest(self._standard.trace), _latest(self._observed.trace))
        if not finding.passed:
            raise BrokenPromise(finding, self.plan)


def _run(plan: Plan, method: Method, device: str) -> Run:
    with torch.random.fork_rng():
        seed_random_numbers(plan.seed, device)
        return Run(plan, method, device)


def _latest(trace: Trace) -> Trace:
    """Return the part of a trace that belongs to the last event."""
    start, last = [trace.start, *trace.snapshots][-2:]
    return Trace(start, [last], trace.raised)
