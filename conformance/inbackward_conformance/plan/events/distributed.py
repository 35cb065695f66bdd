"""What happens on several ranks: wrapping, gradients that are not yet synchronised, uneven inputs.

Every rank of a run carries out the same events, each over batches of its own.
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
        ignored: parameters that DDP leaves to their rank.
        mixed_precision: the dtype that DDP computes and communicates in, and keeps buffers in; empty: their own.
        plainly: whether the implementation is not told: `DistributedDataParallel` itself is called.
    """

    options: dict[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    mixed_precision: str = ""
    plainly: bool = False


@dataclass(frozen=True, repr=False)
class RegisterCommHook(Event):
    """Register a communication hook of torch's own with the wrapper, as a user does.

    Attributes:
        hook: a function of `torch.distributed.algorithms.ddp_comm_hooks.default_hooks`.
    """

    hook: str


@dataclass(frozen=True, repr=False)
class HookThenOptimizer(Event):
    """Register a communication hook on the wrapped model, with an optimizer to step behind it.

    In the standard loop the optimizer is an ordinary one. Gradients stay after the step; here the run frees them.

    Attributes:
        assignment: the optimizer, and the parameters that it steps.
        comm_hook: name of the communication hook: allreduce, fp16_compress, bf16_compress or powerSGD.
    """

    assignment: Assignment
    comm_hook: str = "allreduce"


@dataclass(frozen=True, repr=False)
class FullyShard(Event):
    """Shard the model by FSDP2's `fully_shard`, through the implementation's own call if it has one.

    Sharding makes new Parameter objects: the standard loop builds its optimizers afterwards.

    Attributes:
        options: keyword arguments of `fully_shard`.
        layers: submodules that are sharded on their own, before the whole.
        replicas: how many copies of the model there are, each sharded over its part of the ranks.
        mixed_precision: names of dtypes, by argument of `MixedPrecisionPolicy`.
        offload: whether shards stay in the memory of the CPU, which is not pinned.
    """

    options: dict[str, Any] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    replicas: int = 1
    mixed_precision: dict[str, str] = field(default_factory=dict)
    offload: bool = False


@dataclass(frozen=True, repr=False)
class WrapFSDP(Event):
    """Wrap the model in FSDP1's `FullyShardedDataParallel`, through the implementation's own call if it has one.

    The standard loop builds its optimizers afterwards.

    Attributes:
        use_orig_params: whether the parameters stay; else flat ones take their place.
        by_layer: whether each linear layer is wrapped on its own.
        strategy: name of a `ShardingStrategy`.
    """

    use_orig_params: bool = True
    by_layer: bool = False
    strategy: str = "FULL_SHARD"


@dataclass(frozen=True, repr=False)
class AccumulateUnsynchronised(Event):
    """Forward and backward within `no_sync()`: gradients stay on their rank, and nobody steps.

    Under FSDP2 it is `set_requires_gradient_sync(False)`.
    """

    skip: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Join(Event):
    """Train within `join()`, each rank over as many batches as it has.

    Attributes:
        batches: how many, by rank.
        divide_by_initial_world_size: else gradients are divided by the number of ranks that still have a batch.
    """

    batches: tuple[int, ...]
    divide_by_initial_world_size: bool = True


@dataclass(frozen=True, repr=False)
class PerRank(Event):
    """Something else on each rank; the last of the events is for all further ranks."""

    events: tuple[Event, ...]
