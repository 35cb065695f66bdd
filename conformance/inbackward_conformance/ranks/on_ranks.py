"""Runs functions and plans on ranks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from inbackward_conformance.adapters.find import find_implementation
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.ranks.job import Job, JobRunner, Rank, values_of
from inbackward_conformance.training.in_backward import InBackward
from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.train import train

if TYPE_CHECKING:
    from collections.abc import Callable

    from inbackward_conformance.plan import Plan
    from inbackward_conformance.training.trace import Trace

LARGEST_WORLD_SIZE = 4
"""The largest world size of a plan in the requirements."""


@dataclass(frozen=True)
class OnRanks:
    """The ranks for one implementation.

    Attributes:
        name: the name of the implementation.
        seconds: the time limit of each job.
    """

    ranks: JobRunner
    name: str
    device: str
    seconds: float

    @property
    def scale(self) -> int:
        """The factor by which the world sizes of plans grow: on a larger cluster they use about all of it."""
        return max(1, (self.ranks.world_size or 0) // LARGEST_WORLD_SIZE)

    def call(self, world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return the results of `function(rank, name, *arguments)` by rank.

        Raises:
            BrokenPromise: if it raises on a rank, or a rank hangs or dies.
            NotOffered: if the implementation does not offer something that it needs.
            NotRun: if a rank cannot run it.
        """
        job = Job(function, (self.name, *arguments), world_size, self.device, self.seconds)
        return values_of(self.ranks.run(job))


def run_standard(rank: Rank, name: str, plan: Plan) -> Trace:
    """Run a plan on a rank with the standard loop."""
    return train(plan, StandardLoop(implementation(name)), rank.device, rank.number)


def run_observed(rank: Rank, name: str, plan: Plan) -> Trace:
    """Run a plan on a rank with the implementation `name`."""
    return train(plan, InBackward(implementation(name)), rank.device, rank.number)


def run_both(rank: Rank, name: str, plan: Plan) -> tuple[Trace, Trace | None]:
    """Run a plan on a rank with both, in one process group, because initializing one takes as long as a plan.

    If the standard loop raises, the process group is unusable and the second result is None.
    """
    standard = run_standard(rank, name, plan)
    return standard, None if standard.raised else run_observed(rank, name, plan)


_find = cache(find_implementation)


def implementation(name: str) -> Implementation:
    """Return the implementation `name`, new for each job."""
    return Implementation(_find(name))
