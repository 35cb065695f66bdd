"""Mutants of experts and of offloading: parameters that a rank has not reached, tensors that are elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mutants import of_ddp
from mutants.of_ddp import AfterBackward
from mutants.of_fsdp import KnowsOffloading, OnShards
from mutants.registry import fails


@fails("experts/without_tokens")
class SkipsZeroGradients(AfterBackward):
    """Takes a gradient of zeros for none: weight decay and momentum leave the expert alone."""

    def step(self, module: nn.Module) -> None:
        for param in module.parameters():
            if param.grad is not None and not param.grad.any():
                param.grad = None
        super().step(module)


@fails("experts/not_called")
class StepsWhatThisRankCalled(AfterBackward):
    """Steps the parameters whose hooks were called on this rank; others have averaged gradients as well."""

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        listed = list(params)
        self.reached: set[Tensor] = set()
        for param in listed:
            param.register_post_accumulate_grad_hook(self.reached.add)
        super().apply(optimizer_class, listed, optimizer_kwargs, register_hook)

    def step(self, module: nn.Module) -> None:
        for param in module.parameters():
            if param not in self.reached:
                param.grad = None
        super().step(module)
        self.reached.clear()


@fails("experts/micro_batches")
class StepsWhatTheLastMicroBatchReached(of_ddp.AccumulatesTheLastAlone):
    """Frees what the others have accumulated."""


@fails("offload/saved_on_cpu")
class WantsNoHooksOnSavedTensors(OnShards):
    """Disables them in forward, where `save_on_cpu()` has its own."""

    def fully_shard(self, module: nn.Module, **options: Any) -> Any:
        sharded = super().fully_shard(module, **options)
        disabled = torch.autograd.graph.disable_saved_tensors_hooks("saved tensors have to stay where they are")
        module.register_forward_pre_hook(lambda *_: disabled.__enter__())
        module.register_forward_hook(lambda *_: disabled.__exit__(None, None, None), always_call=True)
        return sharded


@fails("offload/states_on_the_cpu")
class ForgetsOffloadedStates(KnowsOffloading):
    """Makes states on the device for each step."""

    def step(self, module: nn.Module) -> None:
        super().step(module)
        for optimizer in self.attached if self.offloaded else ():
            optimizer.state.clear()


@fails("offload/checkpointed_layers")
class CountsGathersAsUses(OnShards):
    """Steps once for each time that forward has used a layer: twice, if its activations are computed again."""

    def fully_shard(self, module: nn.Module, **options: Any) -> Any:
        sharded = super().fully_shard(module, **options)
        self.uses: dict[nn.Module, int] = {}
        for layer in module.modules():
            layer.register_forward_pre_hook(self.use)
        return sharded

    def use(self, layer: nn.Module, _: Any) -> None:
        self.uses[layer] = self.uses.get(layer, 0) + 1

    def step(self, module: nn.Module) -> None:
        for _ in range(max(self.uses.values())):
            super().step(module)
        self.uses.clear()
