"""Mutants of fully sharded data parallel: what goes wrong between a parameter and its shards."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from mutants import of_ddp
from mutants.naive import Naive
from mutants.of_ddp import AfterBackward
from mutants.registry import base, fails

if TYPE_CHECKING:
    from torch.optim import Optimizer


@fails("fsdp/early_step")
@base
class OnShards(AfterBackward):
    """What the others are made from: ordinary optimizers that follow to the shards, stepped when all is over."""

    def fully_shard(self, module: nn.Module, **options: Any) -> Any:
        if any(optimizer.state for optimizer in self.attached):
            raise ValueError("there is state of whole parameters already: attach after fully_shard")
        whole = list(module.parameters())
        sharded = fully_shard(module, **options)
        shard_of = dict(zip(whole, module.parameters(), strict=True))
        for group in (group for optimizer in self.attached for group in optimizer.param_groups):
            group["params"] = [shard_of.get(param, param) for param in group["params"]]
        return sharded

    def wrap_fsdp(self, module: nn.Module, **options: Any) -> nn.Module:
        if self.attached and not options["use_orig_params"]:
            raise ValueError("flat parameters are to be made first: attach after wrapping")
        return FullyShardedDataParallel(module, **options)


@fails("fsdp/micro_batches", "FSDP2")
class AccumulatesTheLastAlone(of_ddp.AccumulatesTheLastAlone, OnShards):
    """Frees gradients after every micro-batch."""


@fails("fsdp/fully_shard")
class StepsOnUnreducedGradients(OnShards):
    """Hooks the parameters that forward sees: they are whole, and so is their gradient, of this rank alone."""

    def fully_shard(self, module: nn.Module, **options: Any) -> Any:
        sharded = super().fully_shard(module, **options)
        self.grads: dict[str, Tensor] = {}
        module.register_forward_pre_hook(self.watch)
        return sharded

    def watch(self, module: nn.Module, _: Any) -> None:
        for name, param in module.named_parameters():
            param.register_hook(partial(self.grads.__setitem__, name))

    def step(self, module: nn.Module) -> None:
        for name, param in module.named_parameters():
            part = self.grads[name].chunk(distributed.get_world_size())[distributed.get_rank()]
            param.grad.to_local().copy_(part)  # type: ignore[union-attr]
        super().step(module)


@fails("fsdp/attached_before")
@fails("fsdp/flat_parameters", "before")
class StepsStaleParameters(OnShards):
    """Goes on with what it was given, which is nobody's any more."""

    def fully_shard(self, module: nn.Module, **options: Any) -> Any:
        return fully_shard(module, **options)

    def wrap_fsdp(self, module: nn.Module, **options: Any) -> nn.Module:
        return FullyShardedDataParallel(module, **options)


@fails("fsdp/mixed_precision", "float32", by_rounding=("fsdp/mixed_precision",))
class RoundsGradients(OnShards):
    def step(self, module: nn.Module) -> None:
        for param in module.parameters():
            param.grad = param.grad.bfloat16().to(param.dtype)  # type: ignore[union-attr]
        super().step(module)


@fails("fsdp/gradient_sync")
class SynchronisesEachBackward(Naive):
    switch = "set_requires_gradient_sync"

    def fully_shard(self, module: nn.Module, **options: Any) -> Any:
        sharded: Any = fully_shard(module, **options)
        setattr(sharded, self.switch, lambda _: None)
        return sharded


class KnowsOffloading(OnShards):
    """Does something else with shards that are offloaded."""

    def fully_shard(self, module: nn.Module, **options: Any) -> Any:
        self.offloaded = "offload_policy" in options
        return super().fully_shard(module, **options)


@fails("fsdp/cpu_offload")
class StepsACopyOnTheDevice(KnowsOffloading):
    """Brings offloaded shards to the device to step them there, and never takes them back."""

    def step(self, module: nn.Module) -> None:
        kept = [(param, param.detach().clone()) for param in module.parameters()]
        super().step(module)
        with torch.no_grad():
            for param, value in kept if self.offloaded else ():
                param.copy_(value)


@fails("fsdp/clipped_by_hook", "after")
class StepsBeforeHooksOfTheUser(Naive):
    """Is the first hook on a shard, and leaves no gradient for those after it."""


@fails("fsdp/converted")
class KeepsItsOptimizersOnTheTensor(Naive):
    """Keeps them as an attribute of the parameter, which a swap gives away."""


@fails("fsdp/frozen_parameters")
class HooksFrozenParameters(Naive):
    """Hooks whatever it is given, where a frozen parameter takes no hook."""


@fails("fsdp/original_parameters")
@fails("fsdp/original_parameters_attached_before")
class WaitsForHooks(Naive):
    """Has hooks on the original parameters; the gradient is that of a flat one, and nobody calls them."""


@fails("fsdp/no_sync")
class ReducesWithinNoSync(OnShards):
    def wrap_fsdp(self, module: nn.Module, **options: Any) -> nn.Module:
        return _AlwaysInSync(module, **options)


class _AlwaysInSync(FullyShardedDataParallel):
    def no_sync(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


@fails("fsdp/attached_in_training")
class LooksOnce(of_ddp.LooksAtTheFirstForward, OnShards):
    def fully_shard(self, module: nn.Module, **options: Any) -> Any:
        sharded = super().fully_shard(module, **options)
        self.taken = None
        module.register_forward_pre_hook(self.take_over)
        return sharded


@fails("fsdp/two_optimizers")
class LastComeFirstServedOnShards(of_ddp.LastComeFirstServed, OnShards):
    """Steps in the reverse order of attachment."""


@fails("fsdp/different_optimizers")
class OneOptimizerForAll(OnShards):
    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        if self.attached:
            self.attached[0].add_param_group({"params": params})
        else:
            super().apply(optimizer_class, params, optimizer_kwargs, register_hook)


@fails("fsdp/shared_parameter")
class StepsForEachNameOfAShard(of_ddp.StepsForEachName, OnShards):
    """Goes through modules instead of parameters."""


@fails("fsdp/unused_parameters")
class FillsUpGradients(of_ddp.TakesNoGradientForZeros, OnShards):
    """Has a gradient for whatever is sharded together, zeros if need be."""


class HooksLoading(OnShards):
    """Does something with each optimizer that has loaded its state."""

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        super().apply(optimizer_class, params, optimizer_kwargs, register_hook)
        self.attached[-1].register_load_state_dict_post_hook(self.loaded)

    def loaded(self, optimizer: Optimizer) -> None:
        raise NotImplementedError


@fails("fsdp/checkpoint")
@fails("fsdp/checkpoint_of_original_parameters")
class ForgetsStateOnLoading(HooksLoading):
    def loaded(self, optimizer: Optimizer) -> None:
        optimizer.state.clear()


@fails("fsdp/checkpoint", "standard-SGD")
class LoadsWholeStates(HooksLoading):
    """Takes what it has loaded for a state of whole parameters, and leaves it whole on each rank."""

    def loaded(self, optimizer: Optimizer) -> None:
        for state in optimizer.state.values():
            state["momentum_buffer"] = state["momentum_buffer"].full_tensor()
