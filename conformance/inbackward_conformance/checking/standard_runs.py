"""A cache of the standard loop's traces, so that tests of several implementations run it once for each plan."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.train import train

if TYPE_CHECKING:
    from inbackward_conformance.adapters.implementation import Implementation
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.training.trace import Trace

MAX_PLANS = 2048
"""More than any requirement has cases: all cases of a requirement run for one implementation, then for the next."""


class StandardRuns:
    """Traces of the standard loop by plan: one for a plan that runs in this process, else one for each rank.

    Nothing is cached for an implementation with its own optimizer classes or layout of states, since they change the
    standard loop.

    Args:
        implementations: number of implementations to test; with one, nothing is cached.
    """

    def __init__(self, implementations: int = 1) -> None:
        self._at_most = MAX_PLANS if implementations > 1 else 0
        self._traces: OrderedDict[str, list[Trace]] = OrderedDict()

    def here(self, plan: Plan, implementation: Implementation, device: str) -> Trace:
        """Return the trace of a plan that runs in this process."""
        if remembered := self.remembered(plan, implementation):
            return remembered[0]
        trace = train(plan, StandardLoop(implementation), device)
        self.remember(plan, implementation, [trace])
        return trace

    def remembered(self, plan: Plan, implementation: Implementation) -> list[Trace]:
        """Return the cached traces of a plan, one for each rank; empty if there are none."""
        if not self._traces or implementation.has_own_standard_loop:
            return []
        return self._traces.get(repr(plan), [])

    def remember(self, plan: Plan, implementation: Implementation, traces: list[Trace]) -> None:
        """Cache the traces of a plan, and drop the oldest if there are too many."""
        if self._at_most and not implementation.has_own_standard_loop:
            self._traces[repr(plan)] = traces
            while len(self._traces) > self._at_most:
                self._traces.popitem(last=False)
