"""The plan: a model, the assignments of optimizers to its parameters, and the events of the run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inbackward_conformance.plan.events import Attach, AttachMore, SaveSharded
from inbackward_conformance.plan.literals import Printable

if TYPE_CHECKING:
    from inbackward_conformance.plan.assignment import Assignment
    from inbackward_conformance.plan.events import Event, LoadSharded


@dataclass(frozen=True, repr=False)
class Ranks(Printable):
    """The process group that runs a plan, and its device mesh.

    The dimensions of the mesh are `pipeline`, `replicate`, `data` and `tensor`, in this order, as far as they are
    there. Ranks with the same coordinates in `replicate` and `data` train on the same batches. All else is the same on
    every rank.

    Attributes:
        world_size: number of ranks.
        tolerance: the largest difference from the standard loop that passes, relative to the largest value of the
            tensor; 0 means bitwise equal. A mean over three or more ranks depends on the order of the sum and is
            rounded, so an implementation that does not use the reducer's all-reduce need not match it bitwise.
        pipeline: number of ranks that a pipeline has; 0 for a mesh without this dimension.
        replicate: number of replicas of a sharded model; 0 for a mesh without this dimension.
        tensor: number of ranks that share each tensor; 0 for a mesh without this dimension.
    """

    world_size: int
    tolerance: float = 0.0
    pipeline: int = 0
    replicate: int = 0
    tensor: int = 0

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

    def batches_of(self, rank: int) -> int:
        """Return the number of the sequence of batches that a rank trains on."""
        sizes = self.mesh
        return rank // sizes.get("tensor", 1) % (sizes.get("replicate", 1) * sizes["data"])

    @property
    def _others(self) -> tuple[int, int, int]:
        return self.pipeline, self.replicate, self.tensor


@dataclass(frozen=True, repr=False)
class Plan(Printable):
    """One scenario.

    Attributes:
        model: name of a model in `inbackward_conformance.catalogue`.
        assignments: attached in this order.
        events: events after attachment, in order.
        before: events before attachment, in order.
        shared: `(name, source)` pairs; the parameter `name` is replaced by the parameter `source`.
        frozen: parameters that do not require gradients from the start.
        dtype: name of the floating dtype to cast the model and its batches to; empty for no cast.
        arguments: positional arguments of the model class.
        seed: seed of the initial values, the batches and the model's own random numbers.
        ranks: the process group; None to run in this process alone.
    """

    model: str
    assignments: tuple[Assignment, ...]
    events: tuple[Event, ...]
    before: tuple[Event, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()
    frozen: tuple[str, ...] = ()
    dtype: str = ""
    arguments: tuple[Any, ...] = ()
    seed: int = 0
    ranks: Ranks | None = None

    def saving(self, load: LoadSharded) -> Plan:
        """Return the plan that saves the checkpoint which `load`, an event of this plan, loads."""
        events = (*load.events, SaveSharded(load.folder))
        return replace(self, before=load.before, events=events, ranks=load.ranks)

    def assignments_of(self, event: Event) -> tuple[Assignment, ...]:
        """Return the assignments that an event attaches, if any."""
        match event:
            case Attach():
                return self.assignments
            case AttachMore():
                return (event.assignment,)
        return ()
