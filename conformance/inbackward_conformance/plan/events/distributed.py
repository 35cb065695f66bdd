"""Events of distributed training: wrappers, gradients that are not synchronised, uneven inputs.

Every rank runs the same events, each on its own batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inbackward_conformance.plan.events.event import Event

if TYPE_CHECKING:
    from inbackward_conformance.plan.assignment import Assignment


@dataclass(frozen=True, repr=False)
class WrapDDP(Event):
    """Wrap the model in `DistributedDataParallel`, through the implementation's own call if it has one.

    Attributes:
        options: keyword arguments of `DistributedDataParallel`.
        ignored: parameters that DDP does not synchronise.
        mixed_precision: the dtype of parameters, reduction and buffers in DDP; empty for no mixed precision.
        plainly: whether to call `DistributedDataParallel` itself even if the implementation has its own call.
    """

    options: dict[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    mixed_precision: str = ""
    plainly: bool = False


@dataclass(frozen=True, repr=False)
class RegisterCommHook(Event):
    """Register one of torch's communication hooks on the wrapped model, as a user does.

    Attributes:
        hook: name of a function in `torch.distributed.algorithms.ddp_comm_hooks.default_hooks`.
    """

    hook: str


@dataclass(frozen=True, repr=False)
class HookThenOptimizer(Event):
    """Register a communication hook on the wrapped model, and an optimizer that steps after it.

    The standard loop uses an ordinary optimizer. The hook does not free gradients; the run does.

    Attributes:
        assignment: the optimizer, and the parameters that it steps.
        comm_hook: name of the communication hook: allreduce, fp16_compress, bf16_compress or powerSGD.
    """

    assignment: Assignment
    comm_hook: str = "allreduce"


@dataclass(frozen=True, repr=False)
class FullyShard(Event):
    """Shard the model with FSDP2's `fully_shard`, through the implementation's own call if it has one.

    It is sharded over the dimension `data` of the mesh, and replicated over `replicate` if the mesh has that.
    Sharding makes new Parameter objects; the standard loop builds its optimizers afterwards.

    Attributes:
        options: keyword arguments of `fully_shard`.
        layers: submodules that are sharded separately, before the whole model.
        mixed_precision: names of dtypes, by argument of `MixedPrecisionPolicy`.
        offload: whether to offload shards to the CPU, in memory that is not pinned.
    """

    options: dict[str, Any] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    mixed_precision: dict[str, str] = field(default_factory=dict)
    offload: bool = False


@dataclass(frozen=True, repr=False)
class WrapFSDP(Event):
    """Wrap the model in FSDP1's `FullyShardedDataParallel`, through the implementation's own call if it has one.

    The standard loop builds its optimizers afterwards.

    Attributes:
        use_orig_params: as in `FullyShardedDataParallel`; if False, flat parameters replace those of the model.
        by_layer: whether each linear layer is wrapped separately.
        strategy: name of a `ShardingStrategy`.
    """

    use_orig_params: bool = True
    by_layer: bool = False
    strategy: str = "FULL_SHARD"


@dataclass(frozen=True, repr=False)
class Replicate(Event):
    """Make the model data parallel in place, by a composable `replicate` of torch.

    Attributes:
        by_fsdp: whether by the one that replaces parameters by replicated DTensors, as FSDP2 does; if not, by the one
            that has DDP average the gradients.
    """

    by_fsdp: bool = False


@dataclass(frozen=True, repr=False)
class AccumulateUnsynchronised(Event):
    """Accumulate gradients without synchronising them, and without a step.

    That is within `no_sync()` of the wrapper. Where a module was made parallel in place, a switch of the module is off
    meanwhile.

    Attributes:
        skip: branches that this forward leaves out.
        switch: name of the switch.
    """

    skip: tuple[str, ...] = ()
    switch: str = "set_requires_gradient_sync"


@dataclass(frozen=True, repr=False)
class Join(Event):
    """Train within `join()`, each rank on its own number of batches.

    Attributes:
        batches: number of batches, by rank; ranks beyond its end start again at its beginning.
        divide_by_initial_world_size: as in `join`; if False, gradients are divided by the number of ranks that still
            have a batch.
    """

    batches: tuple[int, ...]
    divide_by_initial_world_size: bool = True


@dataclass(frozen=True, repr=False)
class PerRank(Event):
    """Run a different event on each rank; the last event is for all further ranks."""

    events: tuple[Event, ...]
