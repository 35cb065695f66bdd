"""How the ranks share the work, and when the optimizer steps: each of these with each of those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import inbackward
from bench.variants import VARIANTS, handed_over, one_each, standard_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from bench.models import Chain
    from bench.scale.results import Point
    from bench.variants import SetUp

WAYS = {"loop": VARIANTS["loop"].label, "apply": VARIANTS["apply"].label, "handed": "`step_in_backward`"}
OURS = ("apply", "handed")


def set_up_of(point: Point) -> SetUp:
    """Return what sets up the way of training."""
    ways = {"loop": standard_loop, "apply": one_each, "handed": handed_over(point.bucket_bytes)}
    return ways[point.way]


@dataclass(frozen=True)
class Arrangement:
    """One way to share the work.

    Attributes:
        label: What it is, in a few words.
        wrap: Wraps a model for it.
        has_ranks: Whether there is a process group.
        keeps_gradients: Whether buckets hold all gradients, also after a parameter was stepped.
        looks_for_unused: Whether ranks tell each other which parameters they have used.
    """

    label: str
    wrap: Callable[[Chain, Point], nn.Module]
    has_ranks: bool = True
    keeps_gradients: bool = False
    looks_for_unused: bool = False


def _ddp(*, find_unused_parameters: bool) -> Callable[[Chain, Point], nn.Module]:
    def wrap(model: Chain, point: Point) -> nn.Module:
        call = inbackward.wrap_ddp if point.way in OURS else DistributedDataParallel
        return call(
            model,
            bucket_cap_mb=point.bucket_bytes / 2**20,
            find_unused_parameters=find_unused_parameters,
            gradient_as_bucket_view=True,
        )

    return wrap


def _fsdp(model: Chain, point: Point) -> nn.Module:
    mesh = init_device_mesh("cpu", (point.ranks,))
    layers = [*model.layers]
    for first in range(0, point.layers, point.layers_a_unit):
        fully_shard(layers[first : first + point.layers_a_unit], mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


ARRANGEMENTS = {
    "alone": Arrangement("one process", lambda model, _: model, has_ranks=False),
    "ddp": Arrangement("DDP", _ddp(find_unused_parameters=False), keeps_gradients=True),
    "ddp-unused": Arrangement(
        "DDP, find_unused_parameters", _ddp(find_unused_parameters=True), keeps_gradients=True, looks_for_unused=True
    ),
    "fsdp": Arrangement("FSDP2", _fsdp),
}
