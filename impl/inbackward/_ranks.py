"""Training by several processes: which of them brings the gradients of a parameter together, and whether any does.

A gradient is complete on this rank when the parameter's hook is called, before DistributedDataParallel has averaged it
over the ranks. To step then would let the ranks drift apart, and nothing on the parameter shows that a DDP manages it.
So with several ranks up, somebody must have answered for the parameter: a reduction or the user.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from torch import distributed

from inbackward._names import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch.optim import Optimizer


class Reduction(Protocol):
    """What brings the gradients of parameters together, and steps them then."""

    def gradient_is_accumulated(self, param: torch.Tensor) -> None:
        """Takes note of it that this rank's part of the gradient is there."""

    def is_local(self, param: torch.Tensor) -> bool:
        """Whether the parameter was excepted, so that its gradient is this rank's alone."""


TURNS_OF_DDP = 2
"""How often the end of a pass is put off for DDP's own, which in the first pass of a static graph is itself put off."""

# By id of the parameter. A reduction holds its parameters, so an id that is found is never that of a newer tensor.
_reductions: weakref.WeakValueDictionary[int, Reduction] = weakref.WeakValueDictionary()


def reduction_of(param: torch.Tensor) -> Reduction | None:
    """What brings the parameter's gradients together; None if nothing is known to."""
    return _reductions.get(id(param))


def entrust(params: Iterable[torch.Tensor], reduction: Reduction) -> None:
    """Has the reduction say when these parameters step, in place of an earlier one."""
    for param in params:
        _reductions[id(param)] = reduction


def refuse_unaccounted(param: torch.Tensor, optimizers: Iterable[Optimizer]) -> None:
    """Refuses to step a parameter for whose gradients nobody has answered.

    Of a DTensor, torch itself brings the gradients together, over the ranks of its mesh.

    Raises:
        RuntimeError: Several ranks are up, and a DTensor's mesh has not all of them.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return
    size, mesh_size = distributed.get_world_size(), _mesh_size(param)
    if mesh_size == size:
        return
    name = name_of(param, optimizers)
    what = f"{name} over them" if mesh_size == 1 else f"{name}, whose mesh has {mesh_size} of them, over the others"
    msg = f"There are {size} ranks, and nothing says who averages the gradient of {what}. {_REMEDIES}"
    raise RuntimeError(msg)


def _mesh_size(param: torch.Tensor) -> int:
    """How many ranks torch itself brings the gradient together from."""
    if not is_sharded(param):
        return 1
    sharded: Any = param
    size: int = sharded.device_mesh.size()
    return size


_REMEDIES = (
    "This parameter was not stepped; others may have been stepped already. If a DistributedDataParallel or replicate() "
    "is to average it, use inbackward.wrap_ddp or inbackward.attach_to_ddp. For FSDP there are inbackward.fully_shard, "
    "over a mesh of all ranks, and inbackward.wrap_fsdp. If you all-reduce by hand, do it in a hook of the parameter, "
    "and call inbackward.declare_local(params). Call that too for what needs no average: the stage of a pipeline, a "
    "LayerNorm beside tensor parallelism whose gradient every rank has (one whose gradients are partial has to be a "
    "DTensor, as SequenceParallel makes it), or whatever this rank is to train on its own gradient."
)


def is_flattened(param: torch.Tensor) -> bool:
    """Whether FSDP1 has made the parameter, which it marks, part of a flat one."""
    return getattr(param, "_fsdp_flattened", False)


def refuse_flattened(param: torch.Tensor) -> None:
    """Refuses to attach to a parameter of an FSDP1 module that would never say when its gradient is there.

    Raises:
        ValueError: FSDP1 has made it part of a flat parameter, and not by `wrap_fsdp`.
    """
    if is_flattened(param) and reduction_of(param) is None:
        msg = (
            "A parameter belongs to a FullyShardedDataParallel (FSDP1), which tells nobody when its gradient is there. "
            "Wrap the module by inbackward.wrap_fsdp, or use FSDP2."
        )
        raise ValueError(msg)


def is_sharded(param: torch.Tensor) -> bool:
    """Whether the parameter is a DTensor, as FSDP2 makes them: torch itself brings its gradients together."""
    tensors = sys.modules.get("torch.distributed.tensor")  # its import is slow; without it there is no such tensor
    return tensors is not None and isinstance(param, tensors.DTensor)
