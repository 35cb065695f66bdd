"""Writes the events of `plan.events.tensor_parallel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan import events
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(events.ParallelizeLayers)
def _(event: events.ParallelizeLayers, script: Script) -> None:
    styles = [(name, "ColwiseParallel") for name in event.columns] + [(name, "RowwiseParallel") for name in event.rows]
    plan = ", ".join(f"{name!r}: {style}()" for name, style in styles)
    script.add(
        _mesh(event.size, script),
        "from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module",
        f'parallelize_module(model, mesh["tensor"], {{{plan}}})',
    )
    script.shard(mixed=True)


@write.register(events.AverageByHand)
def _(event: events.AverageByHand, script: Script) -> None:
    script.add(_mesh(event.size, script))
    script.add(*script.loop.average_by_hand(script.local("param.grad")))


def _mesh(size: int, script: Script) -> str:
    shape = f"(dist.get_world_size() // {size}, {size})"
    return f'mesh = dist.init_device_mesh({script.device!r}, {shape}, mesh_dim_names=("data", "tensor"))'
