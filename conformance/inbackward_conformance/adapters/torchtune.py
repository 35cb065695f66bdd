"""Adapter of torchtune: `register_optim_in_bwd_hooks`, and `create_optim_in_bwd_wrapper` for state dicts and schedules.

As in torchtune's recipes: a dict of one optimizer for each parameter, hooks on all parameters of the model, and a
scheduler for the first optimizer, whose learning rate the wrapper copies to the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torchtune.training import create_optim_in_bwd_wrapper, register_optim_in_bwd_hooks

from inbackward_conformance.adapters.attached import AttachedOptimizers, smallest_module_with
from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from inbackward_conformance.adapters.implementation import BoundAssignment


RECIPE = """\
import weakref
from torchtune.training import create_optim_in_bwd_wrapper, register_optim_in_bwd_hooks

optim_dicts = weakref.WeakKeyDictionary()  # by model, and dropped with it

def attach(model, assignments):
    own = {param: cls([param], **kwargs) for cls, params, kwargs, _ in assignments for param in params}
    modules = [module for module in model.modules() if own.keys() <= set(module.parameters())]
    smallest = min(modules, key=lambda module: len(list(module.parameters())), default=model)
    register_optim_in_bwd_hooks(model=smallest, optim_dict=own)
    optim_dicts.setdefault(model, []).append(own)

def optim_dict_of(model):
    dicts = [own for of_model in optim_dicts.values() for own in of_model]
    return {param: own[param] for param in model.parameters() for own in dicts if param in own}

def wrapper_of(model):
    return create_optim_in_bwd_wrapper(model=model, optim_dict=optim_dict_of(model))

def start_schedule(model, scheduler_class, **options):
    wrapper = wrapper_of(model)
    scheduler = scheduler_class(optimizer=next(iter(wrapper.optim_map.values())), **options)
    wrapper.set_lr_scheduler(scheduler)
    return [scheduler]
"""
"""What a recipe of torchtune does, for scripts."""


class Torchtune:
    """Puts the optimizers of all assignments of a model into one dict."""

    distribution = "torchtune"
    spelling: ClassVar = {
        "import": RECIPE,
        "attach": "attach({module}, {assignments})",
        "optimizers": "[*optim_dict_of({module}).values()]",
        "schedule": "start_schedule({module}, {scheduler_class}, {options})",
        "state_dict": "wrapper_of({module}).state_dict()",
        "load_state_dict": "wrapper_of({module}).load_state_dict({state})",
    }

    def __init__(self) -> None:
        self._attached = AttachedOptimizers()

    def attach(self, module: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Make the dict of optimizers, and register hooks on the model."""
        optim_dict: dict[nn.Parameter, Optimizer] = {}
        for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
            if not register_hook:
                raise NotOffered("register_optim_in_bwd_hooks always hooks")
            for param in params:
                if isinstance(param, dict | tuple):
                    raise NotOffered("optim_dict is one of parameters, not of groups or named parameters")
                if param in optim_dict:
                    raise NotOffered("optim_dict holds one optimizer a parameter")
                optim_dict[param] = optimizer_class([param], **optimizer_kwargs)
        register_optim_in_bwd_hooks(model=smallest_module_with(module, optim_dict), optim_dict=optim_dict)
        for optimizer in optim_dict.values():
            self._attached.add(optimizer)

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        """Return the optimizers in the dict."""
        return self._attached.of(module)

    def schedule(
        self, module: nn.Module, scheduler_class: Callable[..., LRScheduler], **kwargs: Any
    ) -> list[LRScheduler]:
        """Start a scheduler for the first optimizer, and let the wrapper set the learning rate of the others."""
        scheduler = scheduler_class(optimizer=self.optimizers(module)[0], **kwargs)
        self._wrapper(module).set_lr_scheduler(scheduler)
        return [scheduler]

    def state_dict(self, module: nn.Module) -> Any:
        """Return the wrapper's state dict."""
        return self._wrapper(module).state_dict()

    def load_state_dict(self, module: nn.Module, state: Any) -> None:
        """Load the state dict with the wrapper."""
        self._wrapper(module).load_state_dict(state)

    def _wrapper(self, module: nn.Module) -> Any:
        """Return the wrapper that a recipe makes after registering hooks; it holds optimizers by name, nothing else."""
        optim_dict = {
            param: optimizer
            for optimizer in self.optimizers(module)
            for group in optimizer.param_groups
            for param in group["params"]
        }
        return create_optim_in_bwd_wrapper(model=module, optim_dict=optim_dict)
