"""Executes the events of `plan.events.tensor_parallel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan import events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from torch.distributed.tensor.parallel import ParallelStyle

    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.Parallelize)
def _(event: events.Parallelize, run: TrainingRun) -> None:
    from torch.distributed.tensor.parallel import parallelize_module

    parallelize_module(run.model, run.mesh["tensor"], {name: _style(style) for name, style in event.styles.items()})


@execute.register(events.AverageByHand)
def _(event: events.AverageByHand, run: TrainingRun) -> None:
    run.method.average_by_hand(run.mesh["data"].get_group())


@execute.register(events.DeclareLocal)
def _(event: events.DeclareLocal, run: TrainingRun) -> None:
    names = event.params or [name for name, _ in run.model.named_parameters()]
    run.method.declare_local([run.model.get_parameter(name) for name in names])


def _style(style: events.Style) -> ParallelStyle:
    from torch.distributed.tensor import Replicate, Shard, parallel

    layouts = {"Replicate()": Replicate(), "Shard(0)": Shard(0), "Shard(1)": Shard(1), "Shard(-1)": Shard(-1)}
    made: ParallelStyle = getattr(parallel, style.name)(**{key: layouts[of] for key, of in style.layouts.items()})
    return made
