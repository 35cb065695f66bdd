"""Events of pipeline parallelism, over the dimension `pipeline` of the mesh. Every rank runs the same events."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class CutIntoStages(Event):
    """Keep the stages of this rank, drop those of others from the model, and make a schedule. Belongs in `Plan.before`.

    The ranks of the dimension `pipeline` take turns: of four stages on two ranks, the first has stages 0 and 2. The
    model is one of `Stages`, with as many as the ranks take together.

    Attributes:
        schedule: name of a class in `torch.distributed.pipelining`.
        stages_per_rank: number of stages of each rank.
        micro_batches: number of micro-batches that a batch is split into.
        scale_grads: whether the schedule divides the gradients by that number. If so, the loss of a micro-batch is a
            mean, else a sum, of squared errors.
    """

    schedule: str
    stages_per_rank: int = 1
    micro_batches: int = 4
    scale_grads: bool = True

    @property
    def takes_one_stage(self) -> bool:
        """Whether the schedule is one of a single stage a rank, which it takes in the place of a list."""
        return self.schedule in {"Schedule1F1B", "ScheduleGPipe"}


@dataclass(frozen=True, repr=False)
class RunPipeline(Event):
    """Run the schedule on a batch, which is its own target.

    The standard loop steps after it. An implementation steps inside backward, or is stepped by hand after it has
    accumulated the gradients.

    Attributes:
        accumulated: whether the implementation accumulates them, by its own call.
        summed: parameters whose gradients are summed over the pipeline between schedule and step: copies of one that
            the first and the last stage have in common.
    """

    accumulated: bool = False
    summed: tuple[str, ...] = ()
