"""Mutants of device meshes: a dimension that is forgotten, and what a checkpoint carries from one mesh to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mutants import of_ddp, of_fsdp
from mutants.of_fsdp import OnShards
from mutants.registry import fails

if TYPE_CHECKING:
    from torch import nn


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
@fails("properties_on_ranks/sharded")
class SynchronisesEachBackwardOfAMesh(of_fsdp.SynchronisesEachBackward):
    """Averages and steps, whatever switch is off."""


@fails("mesh/all_reduce_left_out")
class AveragesOverReplicasEachTime(of_fsdp.SynchronisesEachBackward):
    switch = "set_requires_all_reduce"


@fails("mesh/unused_parameters")
class FillsUpGradientsOfAMesh(of_ddp.TakesNoGradientForZeros, OnShards):
    """Has a gradient for whatever is sharded together, zeros if need be."""


@fails("replicate/replicated", "DDP-2")
@fails("replicate/attached_before")
class StepsLocallyInPlace(of_ddp.StepsLocallyUnlessTold):
    """Steps averaged gradients under a wrapper of its own making; no wrapper shows that a module is replicated."""


@fails("replicate/gradient_sync")
class ForgetsWhatAccumulatedInPlace(of_ddp.ForgetsWhatHasAccumulated):
    """Frees gradients before each backward."""


@fails("resharding/another_mesh")
class ForgetsStateOfAnotherMesh(of_fsdp.ForgetsStateOnLoading):
    """Starts anew after loading."""


@fails("resharding/single_optimizer", "data-to-both-saves")
class SavesInAScaleOfItsOwn(OnShards):
    """Halves a moment when it saves, and doubles it when it loads, which no other optimizer does."""

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        super().apply(optimizer_class, params, optimizer_kwargs, register_hook)
        self.attached[-1].register_state_dict_post_hook(lambda _, saved: self.scaled(saved, 0.5))
        self.attached[-1].register_load_state_dict_pre_hook(lambda _, saved: self.scaled(saved, 2.0))

    def scaled(self, saved: dict[str, Any], factor: float) -> dict[str, Any]:
        states = {
            number: {key: value * factor if key == "exp_avg" else value for key, value in state.items()}
            for number, state in saved["state"].items()
        }
        return saved | {"state": states}
