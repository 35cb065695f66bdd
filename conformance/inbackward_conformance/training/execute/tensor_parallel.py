"""Executes the events of `plan.events.tensor_parallel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from inbackward_conformance.plan import events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.ParallelizeLayers)
def _(event: events.ParallelizeLayers, run: TrainingRun) -> None:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    plan = {**{name: ColwiseParallel() for name in event.columns}, **{name: RowwiseParallel() for name in event.rows}}
    parallelize_module(run.model, _mesh(run, event.size)["tensor"], plan)


@execute.register(events.AverageByHand)
def _(event: events.AverageByHand, run: TrainingRun) -> None:
    run.method.average_by_hand(_mesh(run, event.size)["data"].get_group())


def _mesh(run: TrainingRun, size: int) -> DeviceMesh:
    from torch.distributed.device_mesh import init_device_mesh

    shape = (torch.distributed.get_world_size() // size, size)
    return init_device_mesh(run.device.type, shape, mesh_dim_names=("data", "tensor"))
