"""Caught by drawn plans: first what a named requirement catches as well, then what none of them does.

The last ones are made from the reference implementation, which keeps all that is named.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import inbackward
from mutants.naive import Naive
from mutants.of_ddp import ForgetsWhatHasAccumulated
from mutants.of_structure import (
    OneOptimizerAMention,
    OptimizersInReverseOrder,
    RegisterHookIgnored,
    UnhookedOptimizersLeftOutByTheHook,
)
from mutants.of_training import HookOnTheNode
from mutants.registry import base, fails

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

fails("properties/structures")(OptimizersInReverseOrder)
fails("properties/frozen_parameters")(Naive)
fails("properties/histories")(Naive)
fails("properties/live_model")(Naive)
fails("properties/new_data")(HookOnTheNode)
fails("properties/steps_by_hand")(RegisterHookIgnored)
fails("properties/hooked_and_unhooked")(UnhookedOptimizersLeftOutByTheHook)
fails("properties/repeated_listings")(OneOptimizerAMention)
fails("properties/gradients_from_before")(Naive)
fails("properties_on_ranks/ddp")(ForgetsWhatHasAccumulated)


@base
class Reference:
    """The reference implementation, each call of which a mutant can replace."""

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        inbackward.apply_optimizer_in_backward(optimizer_class, params, optimizer_kwargs, register_hook)

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return inbackward.get_in_backward_optimizers(module)

    def detach(self, module: nn.Module) -> None:
        inbackward.detach(module)


@fails("properties/checkpoints", only_drawn=True)
class StatesSavedInOrderOfAttachment(Reference):
    """And loaded in the order of the model: another one where a list of parameters has an order of its own."""

    def __init__(self) -> None:
        self.attached: WeakValueDictionary[int, Any] = WeakValueDictionary()

    def apply(self, optimizer_class: type[Optimizer], params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        listed = list(params)
        super().apply(optimizer_class, listed, *args, **kwargs)
        known = set(map(id, self.attached.values()))
        for param in listed:
            if not isinstance(param, dict | tuple) and id(param) not in known:
                self.attached[max(self.attached, default=0) + 1] = param

    def state_dict(self, module: nn.Module) -> Any:
        own = set(map(id, module.parameters()))
        params = [param for _, param in sorted(self.attached.items()) if id(param) in own]
        listed = [optimizer for param in dict.fromkeys(params) for optimizer in inbackward.optimizers_of(param)]
        return [optimizer.state_dict() for optimizer in listed]


@fails("properties/checkpoints", only_drawn=True)
class StatesOfTrainableParametersSaved(Reference):
    """Those of parameters that are frozen for a while are lost."""

    def state_dict(self, module: nn.Module) -> Any:
        return {
            name: [optimizer.state_dict() for optimizer in inbackward.optimizers_of(param)]
            for name, param in module.named_parameters()
            if param.requires_grad
        }

    def load_state_dict(self, module: nn.Module, state: Any) -> None:
        for name, saved in state.items():
            for optimizer, one in zip(inbackward.optimizers_of(module.get_parameter(name)), saved, strict=True):
                optimizer.load_state_dict(one)


@fails("properties/attachments", only_drawn=True)
class FirstOptimizerDetached(Reference):
    def detach(self, module: nn.Module) -> None:
        for param in module.parameters():
            others = inbackward.optimizers_of(param)[1:]
            inbackward.detach(param)
            for optimizer in others:
                group, offered = optimizer.param_groups[0], inspect.signature(type(optimizer)).parameters
                options = {key: group[key] for key in offered if key != "params" and key in group}
                self.apply(type(optimizer), [param], options)


@fails("properties/checkpoints", only_drawn=True)
class EmptyStatesNotLoaded(Reference):
    """A model that is taken back to before its first step keeps the states of later ones."""

    def load_state_dict(self, module: nn.Module, state: Any) -> None:
        for optimizer, saved in zip(self.optimizers(module), state, strict=True):
            if saved["state"]:
                optimizer.load_state_dict(saved)
