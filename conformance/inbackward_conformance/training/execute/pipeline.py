"""Executes the events of `plan.events.pipeline`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from inbackward_conformance.plan import events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.CutIntoStages)
def _(event: events.CutIntoStages, run: TrainingRun) -> None:
    from torch.distributed import pipelining

    mesh = run.mesh["pipeline"]
    number = event.stages_per_rank * mesh.size()
    own = range(mesh.get_local_rank(), number, mesh.size())
    for index in range(number):
        if index not in own:
            delattr(run.model, f"stage{index}")
    run.stages = [
        pipelining.PipelineStage(
            run.model.get_submodule(f"stage{index}"), index, number, run.device, group=mesh.get_group()
        )
        for index in own
    ]
    scheduled: Any = run.stages[0] if event.takes_one_stage else run.stages
    schedule_class = getattr(pipelining, event.schedule)
    loss = partial(nn.functional.mse_loss, reduction="mean" if event.scale_grads else "sum")
    run.pipeline = schedule_class(scheduled, event.micro_batches, loss_fn=loss, scale_grads=event.scale_grads)


@execute.register(events.RunPipeline)
def _(event: events.RunPipeline, run: TrainingRun) -> None:
    schedule, stages = run.pipeline, run.stages
    assert schedule, "RunPipeline without CutIntoStages before"
    (batch,) = run.next_batch()
    inputs = (batch,) if stages[0].is_first else ()
    target = batch if stages[-1].is_last else None
    method = run.method
    run_pipeline = method.accumulate_pipeline if event.accumulated else method.run_pipeline
    try:
        run_pipeline(run.model, lambda: schedule.step(*inputs, target=target), lambda: _sum(event.summed, run))
    except BaseException:
        _reshard(run.model)  # a layer that an error has left gathered has other Parameter objects
        raise


def _sum(names: tuple[str, ...], run: TrainingRun) -> None:
    """Sum the gradients of parameters over the pipeline; each rank has one of these."""
    for name, param in run.model.named_parameters():
        if name in names:
            torch.distributed.all_reduce(param.grad, group=run.mesh["pipeline"].get_group())


def _reshard(model: nn.Module) -> None:
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
