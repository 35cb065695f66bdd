"""Caught by the chapters sharing, multiple_optimizers, no_hook and listing."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mutants.naive import Naive, Remembering
from mutants.registry import fails

if TYPE_CHECKING:
    from torch.optim import Optimizer


@fails("sharing/used_twice")
class SteppedWhenItsLayerIsThrough(Naive):
    """A full backward hook of the layer fires once a use, before the gradients of all uses are added."""

    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        for optimizer_class, params, kwargs, _ in assignments:
            self.apply(optimizer_class, params, kwargs, register_hook=False)
        for layer in module.modules():
            if list(layer.parameters(recurse=False)):
                layer.register_full_backward_hook(self.layer_is_through)

    def layer_is_through(self, layer: nn.Module, *_: Any) -> None:
        for param in layer.parameters(recurse=False):
            if param.grad is not None:
                self.on_gradient(param)


@fails("sharing/two_names")
class OneOptimizerANameOfTheParameter(Naive):
    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        for optimizer_class, _, kwargs, hook in assignments:
            for _, param in module.named_parameters(remove_duplicate=False):
                self.apply(optimizer_class, [param], kwargs, hook)


@fails("sharing/either_name", "SGD-momentum-1.weight")
class ParametersFoundByTheirOwnersFirstName(Naive):
    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        owners = dict(module.named_parameters())
        for optimizer_class, params, kwargs, hook in assignments:
            if len(list(params)) < len(owners):
                self.apply(optimizer_class, [owners["0.weight"].detach().requires_grad_()], kwargs, hook)
            else:
                self.apply(optimizer_class, owners.values(), kwargs, hook)


@fails("sharing/listed_twice")
class RepetitionsInTheListDropped(Naive):
    def apply(self, optimizer_class: type[Optimizer], params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        super().apply(optimizer_class, dict.fromkeys(params), *args, **kwargs)


@fails("sharing/listed_twice_with_state")
class OneOptimizerAMention(Naive):
    def apply(self, optimizer_class: type[Optimizer], params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        for param in params:
            super().apply(optimizer_class, [param], *args, **kwargs)


@fails("multiple_optimizers/same_class")
class LaterOptimizerReplacesTheFirst(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        param.optimizers = []
        super().attach_to(param, optimizer, hook=hook)


@fails("multiple_optimizers/order_of_attachment", "SGD-Adam")
class OptimizersInReverseOrder(Naive):
    def step_all(self, param: Tensor) -> None:
        for optimizer in reversed(self.optimizers_of(param)):
            self.step(optimizer, param)


@fails("multiple_optimizers/overlap")
class ParametersOnceAttachedAreSkipped(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        if not hasattr(param, "optimizers"):
            super().attach_to(param, optimizer, hook=hook)


@fails("multiple_optimizers/one_step_each")
class OneHookAnAttachment(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        param.__dict__.pop("hook", None)
        super().attach_to(param, optimizer, hook=hook)


@fails("multiple_optimizers/own_state")
class StateSharedByTheOptimizersOfAParameter(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook)
        optimizer.state = param.optimizers[0].state


@fails("no_hook/backward_steps_nothing")
class RegisterHookIgnored(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=True)


@fails("no_hook/stepped_by_hand")
class GradientsFreedWithoutAStep(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook)
        if not hook:
            param.register_post_accumulate_grad_hook(lambda param: setattr(param, "grad", None))


@fails("no_hook/beside_hooked_parameters")
class AllGradientsFreedAfterBackward(Naive):
    def backward(self, loss: Tensor, module: nn.Module) -> None:
        loss.backward()
        module.zero_grad()


@fails("no_hook/hooked_and_unhooked")
class UnhookedOptimizersLeftOutByTheHook(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook)
        optimizer.__dict__["hooked"] = hook

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        if optimizer.__dict__["hooked"]:
            super().step(optimizer, param)


@fails("listing/holds_every_parameter", "2")
class FirstOptimizerOfAParameterListed(Naive):
    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return [optimizer for param in module.parameters() for optimizer in self.optimizers_of(param)[:1]]


@fails("listing/same_each_time")
class CopiesListed(Naive):
    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return [copy.copy(optimizer) for optimizer in super().optimizers(module)]


@fails("listing/shared_parameter_once")
class SharedParametersListedOnceAName(Naive):
    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        named = module.named_parameters(remove_duplicate=False)
        return [optimizer for _, param in named for optimizer in self.optimizers_of(param)]


@fails("listing/plain_module")
class AllThatWasEverAttachedListed(Remembering):
    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return self.built


@fails("listing/submodules")
class OnlyTheWholeModelLists(Naive):
    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return super().optimizers(module) if list(module.children()) else []


@fails("listing/order")
class ListedInOrderOfAttachment(Remembering):
    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        own = {id(param) for param in module.parameters()}
        return [optimizer for optimizer in self.built if id(optimizer.param_groups[0]["params"][0]) in own]


@fails("gradients/freed")
class GradientZeroedInsteadOfFreed(Naive):
    def on_gradient(self, param: Tensor) -> None:
        for optimizer in self.optimizers_of(param):
            self.step(optimizer, param)
            optimizer.zero_grad(set_to_none=False)


@fails("gradients/another_optimizer", by_rounding=("gradients/seen_by_hook",))
class GradientKeptUntilTheNextOne(Naive):
    def on_gradient(self, param: Tensor) -> None:
        if hasattr(param, "stale") and param.grad is not None:
            param.grad = param.grad - param.stale
        self.step_all(param)
        if param.grad is not None:
            param.__dict__["stale"] = param.grad.clone()


@fails("gradients/from_before")
class GradientDroppedAtAttachment(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook)
        param.grad = None


fails("gradients/from_before_unreached")(Naive)


@fails("gradients/zero")
class ZeroGradientsSkipped(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        if param.grad is not None and param.grad.any():
            super().step(optimizer, param)


@fails("gradients/non_finite")
class NonFiniteGradientsSkipped(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        if param.grad is not None and torch.isfinite(param.grad).all():
            super().step(optimizer, param)
