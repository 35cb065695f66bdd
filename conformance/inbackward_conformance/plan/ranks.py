"""The process group of a plan, and its device mesh."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from inbackward_conformance.plan.literals import Printable


@dataclass(frozen=True, repr=False)
class Ranks(Printable):
    """The process group that runs a plan, and its device mesh.

    The dimensions of the mesh are `pipeline`, `replicate`, `data` and `tensor`, in this order, as far as they are
    there. Ranks with the same coordinates in `replicate` and `data` train on the same batches. All else is the same on
    every rank.

    Attributes:
        world_size: number of ranks.
        tolerance: the largest difference from the standard loop that passes where there are three or more ranks,
            relative to the largest value of the tensor; 0 means bitwise equal. A mean over three or more ranks depends
            on the order of the sum and is rounded, so an implementation that does not use the reducer's all-reduce need
            not match it bitwise. A mean over two has one value, and is compared bitwise.
        pipeline: number of ranks that a pipeline has; 0 for a mesh without this dimension.
        replicate: number of replicas of a sharded model; 0 for a mesh without this dimension.
        tensor: number of ranks that share each tensor; 0 for a mesh without this dimension.
        fixed: whether the world size is the same on larger clusters.
    """

    world_size: int
    tolerance: float = 0.0
    pipeline: int = 0
    replicate: int = 0
    tensor: int = 0
    fixed: bool = False

    def __post_init__(self) -> None:
        """Reject sizes that do not divide the world size."""
        others = math.prod(size for size in self._others if size)
        if self.world_size < 1 or self.world_size % others:
            msg = f"{self!r}: expected a world size that is a multiple of {others}, the product of the other sizes"
            raise ValueError(msg)

    @property
    def mesh(self) -> dict[str, int]:
        """The size of each dimension of the mesh, by name, the outermost first; `data` is what the others leave."""
        data = self.world_size // math.prod(size for size in self._others if size)
        sizes = {"pipeline": self.pipeline, "replicate": self.replicate, "data": data, "tensor": self.tensor}
        return {name: size for name, size in sizes.items() if size}

    @property
    def sends_activations(self) -> bool:
        """Whether ranks need each other's activations: those of a pipeline, and those that share tensors, do."""
        return self.pipeline > 1 or self.tensor > 1

    def scaled(self, factor: int) -> Ranks:
        """Return `factor` times as many ranks; the same if there is one, or their number is fixed.

        The dimension `data` of the mesh grows.
        """
        if self.fixed or self.world_size == 1:
            return self
        return replace(self, world_size=factor * self.world_size)

    def batches_of(self, rank: int) -> int:
        """Return the number of the sequence of batches that a rank trains on."""
        sizes = self.mesh
        return rank // sizes.get("tensor", 1) % (sizes.get("replicate", 1) * sizes["data"])

    @property
    def _others(self) -> tuple[int, int, int]:
        return self.pipeline, self.replicate, self.tensor
