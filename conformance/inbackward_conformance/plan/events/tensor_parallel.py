"""Events of tensor parallelism.

Every rank runs the same events. The ranks are a mesh of two dimensions, `data` and `tensor`.
"""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class ParallelizeLayers(Event):
    """Shard layers over the ranks of the dimension `tensor`, by `parallelize_module`, into new Parameter objects.

    Attributes:
        size: number of ranks in that dimension.
        columns: linear layers that are sharded by columns.
        rows: linear layers that are sharded by rows.
    """

    size: int
    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class AverageByHand(Event):
    """Average gradients between backward and step from now on: all parameters, over the dimension `data`.

    Attributes:
        size: number of ranks in the dimension `tensor`.
    """

    size: int = 1
