"""Adapter of optimi (`torch-optimi`): `prepare_for_gradient_release`, with optimi's own optimizer classes.

A class in `torch.optim` means optimi's class of that name. The standard loop uses it without gradient release.
"""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import optimi
import torch

from inbackward_conformance.adapters.attached import AttachedOptimizers, smallest_module_with
from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from inbackward_conformance.adapters.implementation import BoundAssignment


RECIPE = """\
import weakref
import optimi

prepared = weakref.WeakKeyDictionary()  # keeps nothing alive

def params_of(optimizer):
    return {param for group in optimizer.param_groups for param in group["params"]}

def prepared_on(model):
    return [optimizer for optimizer in prepared if not params_of(optimizer).isdisjoint(model.parameters())]

def make(optimizer_class, params, optimizer_kwargs, **release):
    return getattr(optimi, optimizer_class.__name__)(params, **optimizer_kwargs, **release)

def attach(model, assignments):
    for optimizer_class, params, optimizer_kwargs, _ in assignments:
        optimizer = make(optimizer_class, params, optimizer_kwargs, gradient_release=True)
        modules = [module for module in model.modules() if params_of(optimizer) <= set(module.parameters())]
        smallest = min(modules, key=lambda module: len(list(module.parameters())))
        optimi.prepare_for_gradient_release(smallest, optimizer, ignore_existing_hooks=not prepared_on(smallest))
        prepared[optimizer] = True

def state_of(optimizer, param):
    state = {key: value for key, value in optimizer.state[param].items() if key != "group"}
    group = next(group for group in optimizer.param_groups if any(item is param for item in group["params"]))
    return {"step": group["step"], **state} if "step" in group else state
"""
"""What a user of optimi does, for scripts."""


class Optimi:
    """Makes one optimi optimizer for each assignment, and prepares the smallest module with its parameters."""

    distribution = "torch-optimi"
    spelling: ClassVar = {
        "import": RECIPE,
        "attach": "attach({module}, {assignments})",
        "optimizers": "prepared_on({module})",
        "standard_optimizer": "make({optimizer_class}, {params}, {optimizer_kwargs})",
        "state_of": "state_of({optimizer}, {param})",
        "detach": "optimi.remove_gradient_release({module})",
    }

    def __init__(self) -> None:
        self._attached = AttachedOptimizers()

    def attach(self, module: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Make each optimizer and prepare the model for it."""
        for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
            if not register_hook:
                raise NotOffered("an optimizer of optimi's steps by its hooks or by hand, as it was made")
            if not _is_optimizer_class(optimizer_class):
                optimi.prepare_for_gradient_release(module, optimizer_class)  # for optimi's own error
            optimizer = self._make(optimizer_class, params, optimizer_kwargs, gradient_release=True)
            own = [param for group in optimizer.param_groups for param in group["params"]]
            smallest = smallest_module_with(module, own)
            # Hooks of the user are expected; whether a parameter may have a second optimizer is for optimi to decide.
            ignore = not self._attached.of(smallest)
            optimi.prepare_for_gradient_release(smallest, optimizer, ignore_existing_hooks=ignore)
            self._attached.add(optimizer)

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        """Return the optimizers that `module` is prepared for."""
        return self._attached.of(module)

    def standard_optimizer(
        self, optimizer_class: type[Optimizer], params: Iterable[Any], optimizer_kwargs: dict[str, Any]
    ) -> Optimizer:
        """Return an optimizer of the same class, without gradient release."""
        return self._make(optimizer_class, params, optimizer_kwargs, gradient_release=False)

    def state_of(self, optimizer: Optimizer, param: Tensor) -> dict[str, Any]:
        """Return the state without the group, and with its step count, which the group has without gradient release."""
        state = {key: value for key, value in optimizer.state[param].items() if key != "group"}
        holding = (group for group in optimizer.param_groups if any(item is param for item in group["params"]))
        group = next(holding, {})
        return {"step": group["step"], **state} if state and "step" in group else state

    def detach(self, module: nn.Module) -> None:
        """Remove the hooks."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about modules without hooks
            for part in module.modules():
                optimi.remove_gradient_release(part)

    def _make(
        self, optimizer_class: type[Optimizer], params: Iterable[Any], optimizer_kwargs: dict[str, Any], **release: bool
    ) -> Optimizer:
        own_class: Any = getattr(optimi, optimizer_class.__name__, None)
        if optimizer_class is not getattr(torch.optim, optimizer_class.__name__, None) or own_class is None:
            raise NotOffered(f"optimi has no {optimizer_class.__name__}, and releases its own classes only")
        optimizer: Optimizer = own_class(params, **_options(own_class, optimizer_class, optimizer_kwargs), **release)
        return optimizer


def _is_optimizer_class(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)


def _options(own_class: Any, torch_class: Any, optimizer_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Translate keyword arguments to optimi's; drop those that optimi lacks if they are at torch's default."""
    own, of_torch = (inspect.signature(cls).parameters for cls in (own_class, torch_class))
    options: dict[str, Any] = {}
    for name, value in optimizer_kwargs.items():
        if name == "dampening" and value:
            raise NotOffered("dampening is a number in torch, and on or off in optimi")
        if name in own:
            options[name] = bool(value) if name == "dampening" else value
        elif name not in of_torch:
            options[name] = value  # for optimi to reject
        elif value != of_torch[name].default:
            raise NotOffered(f"{own_class.__name__} of optimi has no {name}")
    return options
