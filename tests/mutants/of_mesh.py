"""Mutants of device meshes: a dimension that is forgotten, and what a checkpoint carries from one mesh to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

from mutants import of_ddp, of_fsdp
from mutants.naive import Naive
from mutants.of_fsdp import HooksLoading, OnShards
from mutants.registry import fails

if TYPE_CHECKING:
    from torch.optim import Optimizer


@fails("mesh/fully_shard", "hybrid-whole")
class ForgetsReplicas(OnShards):
    """Shards over the last dimension of the mesh, and averages over no other."""

    def fully_shard(self, module: nn.Module, **options: Any) -> Any:
        mesh = options["mesh"]
        return super().fully_shard(module, **options | {"mesh": mesh[mesh.mesh_dim_names[-1]]})


@fails("mesh/attached_before")
class StepsStaleParametersOfAMesh(of_fsdp.StepsStaleParameters):
    """Goes on with what it was given."""


@fails("mesh/gradient_sync")
class SynchronisesEachBackwardOfAMesh(of_fsdp.SynchronisesEachBackward):
    """Averages and steps, whatever switch is off."""


@fails("mesh/all_reduce_left_out")
class AveragesOverReplicasEachTime(Naive):
    def fully_shard(self, module: nn.Module, **options: Any) -> Any:
        sharded: Any = fully_shard(module, **options)
        sharded.set_requires_all_reduce = lambda _: None
        return sharded


@fails("mesh/unused_parameters")
class FillsUpGradientsOfAMesh(of_ddp.TakesNoGradientForZeros, OnShards):
    """Has a gradient for whatever is sharded together, zeros if need be."""


@fails("replicate/replicated", "DDP-2")
@fails("replicate/attached_before")
class StepsAtTheFirstHook(Naive):
    """Has hooks on parameters, whose gradients DDP averages later."""


@fails("replicate/gradient_sync")
class ForgetsWhatAccumulatedInPlace(of_ddp.ForgetsWhatHasAccumulated):
    """Frees gradients before each backward."""


@fails("resharding/another_mesh")
class ForgetsStateOfAnotherMesh(of_fsdp.ForgetsStateOnLoading):
    """Starts anew after loading."""


@fails("resharding/single_optimizer", "data-to-both-loads")
class LoadsOneRankOfStates(HooksLoading):
    """Takes the states that it has loaded for those of the first rank, where others have other shards."""

    def loaded(self, optimizer: Optimizer) -> None:
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor) and value.dim():
                    torch.distributed.broadcast(value.to_local(), 0)  # type: ignore[attr-defined]


@fails("resharding/single_optimizer", "data-to-both-saves")
class SavesThePartOfOneRank(OnShards):
    """Saves the states of this rank's parts as if they were whole, which nothing but itself can load."""
