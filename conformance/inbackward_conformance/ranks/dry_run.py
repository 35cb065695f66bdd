"""A dry run: each plan is built and attached on one rank of torch's fake process group, and nothing is compared."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import NotRun
from inbackward_conformance.plan import Plan, Ranks
from inbackward_conformance.plan.events import (
    AverageByHand,
    DeclareLocal,
    Forward,
    FullyShard,
    HookThenOptimizer,
    Parallelize,
    RegisterCommHook,
    TrainOrdinarily,
    WrapDDP,
    WrapFSDP,
)
from inbackward_conformance.ranks.job import Answer, run_job
from inbackward_conformance.ranks.time_limit import time_limit
from inbackward_conformance.training.trace import Raised, Trace

if TYPE_CHECKING:
    from inbackward_conformance.ranks.job import Job

PREPARING = (
    AverageByHand,
    DeclareLocal,
    FullyShard,
    HookThenOptimizer,
    Parallelize,
    RegisterCommHook,
    WrapDDP,
    WrapFSDP,
)
"""Events that may come after attachment and before training."""


class DryRun:
    """Rank 0 of `world_size` ranks, in this process.

    The fake process group communicates with nobody: a collective returns what this rank has. So a dry run shows no more
    than errors.
    """

    is_dry = True

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self._built = 0

    @property
    def description(self) -> str:
        """What has run, on one line."""
        return (
            f"dry run for {self.world_size:,} ranks: built, sharded and attached {self._built} plans on rank 0; "
            f"no values were compared"
        )

    def run(self, job: Job) -> list[Answer]:
        """Return the answer of rank 0 if the plan raises an error.

        Raises:
            NotRun: if it does not, or the job is of no plan that grows with the number of ranks.
        """
        match job.arguments:
            case (name, Plan(ranks=Ranks(fixed=False)) as plan):
                arguments = (name, _without_training(plan))
            case _:
                raise NotRun("dry run: this is no plan that grows with the number of ranks, and nothing was run")
        if job.world_size > self.world_size:
            raise NotRun(f"dry run: {job.world_size} ranks are needed, and it is for {self.world_size}")
        with time_limit(job.seconds):
            answer = run_job(replace(job, arguments=arguments, fake=True), 0)
        match answer.value:
            case Trace(raised=None), Trace(raised=None):
                self._built += 1
                raise NotRun(
                    f"dry run: built, sharded and attached on rank 0 of {job.world_size:,}; no values were compared"
                )
            case Trace() as standard, Trace(raised=Raised()) as observed:
                # The error is to be judged, but not the values before it.
                expected = replace(standard, start=observed.start, snapshots=observed.snapshots[:-1])
                return [replace(answer, value=(expected, observed))]
        return [answer]


def _without_training(plan: Plan) -> Plan:
    """Return the plan up to the first event of training after attachment.

    Before attachment, a step under DDP becomes a forward: its backward raises on the fake process group.
    """
    under_ddp = any(isinstance(event, WrapDDP) for event in plan.before)
    return replace(
        plan,
        before=tuple(Forward() if under_ddp and isinstance(event, TrainOrdinarily) else event for event in plan.before),
        events=tuple(takewhile(lambda event: isinstance(event, PREPARING), plan.events)),
    )
