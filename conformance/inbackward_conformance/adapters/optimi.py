"""optimi (`torch-optimi`): `prepare_for_gradient_release`, with its own optimizer classes.

The standard loop uses the same class without release. Classes of `torch.optim` stand for optimi's of the same name.
"""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import optimi
import torch

from inbackward_conformance.adapters.attached import Attached, part_with
from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from inbackward_conformance.adapters.implementation import BoundAssignment


RECIPE = """\
import optimi

made = []

def prepared_on(model):
    return [each for each in made if not set(model.parameters()).isdisjoint(each.param_groups[0]["params"])]

def make(optimizer_class, params, optimizer_kwargs, **release):
    return getattr(optimi, optimizer_class.__name__)(params, **optimizer_kwargs, **release)

def attach(model, assignments):
    for optimizer_class, params, optimizer_kwargs, _ in assignments:
        optimizer = make(optimizer_class, params, optimizer_kwargs, gradient_release=True)
        held = {param for group in optimizer.param_groups for param in group["params"]}
        parts = [part for part in model.modules() if held <= set(part.parameters())]
        smallest = min(parts, key=lambda part: len(list(part.parameters())))
        optimi.prepare_for_gradient_release(smallest, optimizer, ignore_existing_hooks=not prepared_on(smallest))
        made.append(optimizer)

def state_of(optimizer, param):
    state = {key: value for key, value in optimizer.state[param].items() if key != "group"}
    group = next(group for group in optimizer.param_groups if any(held is param for held in group["params"]))
    return {"step": group["step"], **state} if "step" in group else state
"""
"""What its users do with it, as a script has it."""


class Optimi:
    """Each assignment is one optimizer of optimi's, prepared on the part of the model that holds its parameters."""

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
        self._attached = Attached()

    def attach(self, module: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Prepare the model for each optimizer in turn."""
        for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
            if not register_hook:
                raise NotOffered("an optimizer of optimi's steps by its hooks or by hand, as it was made")
            if not _is_optimizer_class(optimizer_class):
                optimi.prepare_for_gradient_release(module, optimizer_class)  # which says what it wants
            optimizer = self._make(optimizer_class, params, optimizer_kwargs, gradient_release=True)
            part = part_with(module, (param for group in optimizer.param_groups for param in group["params"]))
            # Hooks of the user's own are expected; of a second optimizer on a parameter optimi is left to judge.
            optimi.prepare_for_gradient_release(part, optimizer, ignore_existing_hooks=not self._attached.of(part))
            self._attached.add(optimizer)

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        """Return those that were prepared."""
        return self._attached.of(module)

    def standard_optimizer(
        self, optimizer_class: type[Optimizer], params: Iterable[Any], optimizer_kwargs: dict[str, Any]
    ) -> Optimizer:
        """Return an optimizer of the same class, without release."""
        return self._make(optimizer_class, params, optimizer_kwargs, gradient_release=False)

    def state_of(self, optimizer: Optimizer, param: Tensor) -> dict[str, Any]:
        """Return the state with its count of steps, which without release the group counts, and without the group."""
        state = {key: value for key, value in optimizer.state[param].items() if key != "group"}
        holding = (group for group in optimizer.param_groups if any(held is param for held in group["params"]))
        group = next(holding, {})
        return {"step": group["step"], **state} if state and "step" in group else state

    def detach(self, module: nn.Module) -> None:
        """Remove the hooks."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parts that have none
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


def _is_optimizer_class(given: object) -> bool:
    return inspect.isclass(given) and issubclass(given, torch.optim.Optimizer)


def _options(own_class: Any, torch_class: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return what is given in optimi's words; an option that says what torch does anyway needs no word."""
    own, of_torch = (inspect.signature(cls).parameters for cls in (own_class, torch_class))
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name == "dampening" and value:
            raise NotOffered("dampening is a number in torch, and on or off in optimi")
        if name in own:
            options[name] = bool(value) if name == "dampening" else value
        elif name not in of_torch:
            options[name] = value  # for optimi to reject
        elif value != of_torch[name].default:
            raise NotOffered(f"{own_class.__name__} of optimi has no {name}")
    return options
