"""The way of a case to ranks, and the functions that they are sent: one plan, by one method."""

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


@dataclass(frozen=True)
class OnRanks:
    """Ranks, for the cases of one implementation.

    Attributes:
        name: of the implementation, under which ranks find it.
        seconds: the time limit of each job.
    """

    ranks: JobRunner
    name: str
    device: str
    seconds: float

    def call(self, world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return, by rank, what `function(rank, name, *arguments)` returns.

        Raises:
            BrokenPromise: it raises on a rank, or a rank hangs or died.
            NotOffered: the implementation does not offer something that it needs.
            NotRun: a rank cannot do it.
        """
        job = Job(function, (self.name, *arguments), world_size, self.device, self.seconds)
        return values_of(self.ranks.run(job))


def run_standard(rank: Rank, name: str, plan: Plan) -> Trace:
    """Carry out a rank's share of a plan by the standard loop."""
    return train(plan, StandardLoop(implementation(name)), rank.device, rank.number)


def run_observed(rank: Rank, name: str, plan: Plan) -> Trace:
    """Carry out a rank's share of a plan by the implementation of that name."""
    return train(plan, InBackward(implementation(name)), rank.device, rank.number)


def run_both(rank: Rank, name: str, plan: Plan) -> tuple[Trace, Trace | None]:
    """Carry out a rank's share of a plan by both, in one process group, whose making costs as much as a train.

    Where the standard loop raises, the process group is spoiled and the second is left out.
    """
    standard = run_standard(rank, name, plan)
    return standard, None if standard.raised else run_observed(rank, name, plan)


_find = cache(find_implementation)


def implementation(name: str) -> Implementation:
    """Return the implementation of that name, new for each job."""
    return Implementation(_find(name))
