"""Remembers what the standard loop leaves, so that a run of several implementations trains by it once a plan."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.train import train

if TYPE_CHECKING:
    from inbackward_conformance.adapters.implementation import Implementation
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.training.trace import Trace

ENOUGH = 2048
"""More than the cases of any requirement: they run for one implementation, then for the next."""


class StandardRuns:
    """Traces of the standard loop by plan: one for a plan that runs here, one a rank for a plan that runs on ranks.

    An implementation that brings optimizer classes or a layout of states of its own has a standard loop of its own:
    nothing of it is remembered.

    Args:
        implementations: how many are tested; with one, nothing is remembered.
    """

    def __init__(self, implementations: int = 1) -> None:
        self._at_most = ENOUGH if implementations > 1 else 0
        self._traces: OrderedDict[str, list[Trace]] = OrderedDict()

    def here(self, plan: Plan, implementation: Implementation, device: str) -> Trace:
        """Return the trace of a plan that runs in this process."""
        if remembered := self.remembered(plan, implementation):
            return remembered[0]
        trace = train(plan, StandardLoop(implementation), device)
        self.remember(plan, implementation, [trace])
        return trace

    def remembered(self, plan: Plan, implementation: Implementation) -> list[Trace]:
        """Return the traces of a plan, one a rank; an empty list: there are none."""
        return [] if _has_its_own(implementation) else self._traces.get(repr(plan), [])

    def remember(self, plan: Plan, implementation: Implementation, traces: list[Trace]) -> None:
        """Keep the traces of a plan, and forget the oldest if there are too many."""
        if self._at_most and not _has_its_own(implementation):
            self._traces[repr(plan)] = traces
            while len(self._traces) > self._at_most:
                self._traces.popitem(last=False)


def _has_its_own(implementation: Implementation) -> bool:
    return implementation.offers("standard_optimizer") or implementation.offers("state_of")
