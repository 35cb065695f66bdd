"""Adapter of optimi: `prepare_for_gradient_release`, with optimi's classes of the same names as in `torch.optim`."""

from __future__ import annotations

import inspect
import weakref
from typing import TYPE_CHECKING, Any

import optimi
import torch

from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from inbackward_conformance.adapters.implementation import BoundAssignment

distribution = "torch-optimi"
spelling = "source"

prepared: weakref.WeakKeyDictionary[Optimizer, None] = weakref.WeakKeyDictionary()


def make(optimizer_class: Any, params: Any, optimizer_kwargs: dict[str, Any], **release: bool) -> Any:
    if why_not(optimizer_class, optimizer_kwargs):
        raise NotOffered(why_not(optimizer_class, optimizer_kwargs))
    own, of_torch = getattr(optimi, optimizer_class.__name__), inspect.signature(optimizer_class).parameters
    lacking = {*of_torch} - {*inspect.signature(own).parameters} | {"dampening"}
    return own(params, **{name: value for name, value in optimizer_kwargs.items() if name not in lacking}, **release)


def why_not(optimizer_class: Any, optimizer_kwargs: dict[str, Any]) -> str:
    if not (inspect.isclass(optimizer_class) and issubclass(optimizer_class, torch.optim.Optimizer)):
        optimi.prepare_for_gradient_release(torch.nn.Module(), optimizer_class)  # for optimi's own error
    own, of_torch = getattr(optimi, optimizer_class.__name__, None), inspect.signature(optimizer_class).parameters
    if optimizer_class is not getattr(torch.optim, optimizer_class.__name__, None) or own is None:
        return f"optimi has no {optimizer_class.__name__}, and releases its own classes only"
    lacking = {*of_torch} - {*inspect.signature(own).parameters}
    if changed := [each for each in lacking & {*optimizer_kwargs} if optimizer_kwargs[each] != of_torch[each].default]:
        return f"{own.__name__} of optimi has no {', '.join(changed)}"
    return "dampening is a number in torch, and on or off in optimi" if optimizer_kwargs.get("dampening") else ""


standard_optimizer = make  # without gradient release


def attach(module: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        if not register_hook:
            raise NotOffered("an optimizer of optimi's steps by its hooks or by hand, as it was made")
        optimizer = make(optimizer_class, params, optimizer_kwargs, gradient_release=True)
        modules = [part for part in module.modules() if params_of(optimizer) <= set(part.parameters())]
        smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
        # Hooks of the user are expected; whether a parameter may have a second optimizer is for optimi to decide.
        optimi.prepare_for_gradient_release(smallest, optimizer, ignore_existing_hooks=not optimizers(smallest))
        prepared[optimizer] = None


def params_of(optimizer: Optimizer) -> set[Tensor]:
    return {param for group in optimizer.param_groups for param in group["params"]}


def optimizers(module: nn.Module) -> list[Optimizer]:
    return [*dict.fromkeys(each for param in module.parameters() for each in prepared if param in params_of(each))]


def state_of(optimizer: Optimizer, param: Tensor) -> dict[str, Any]:
    """Return the state without the group, and with its step count, which the group has without gradient release."""
    state = {key: value for key, value in optimizer.state[param].items() if key != "group"}
    group = next((group for group in optimizer.param_groups if any(item is param for item in group["params"])), {})
    return {"step": group["step"], **state} if state and "step" in group else state


def detach(module: nn.Module) -> None:
    for part in module.modules():
        optimi.remove_gradient_release(part)
