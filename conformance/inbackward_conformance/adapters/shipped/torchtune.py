"""Adapter of torchtune: `register_optim_in_bwd_hooks`, and `create_optim_in_bwd_wrapper` for state dicts and schedules.

As in torchtune's recipes: a dict of one optimizer for each parameter, hooks on all parameters of the model, and a
scheduler for the first optimizer, whose learning rate the wrapper copies to the others.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torchtune.training import create_optim_in_bwd_wrapper, register_optim_in_bwd_hooks

from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn
    from torch.optim import Optimizer

    from inbackward_conformance.adapters.implementation import BoundAssignment

distribution = "torchtune"
spelling = "source"

attached: weakref.WeakKeyDictionary[Optimizer, None] = weakref.WeakKeyDictionary()


def attach(module: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
    """Make the dict of optimizers, and register hooks on the smallest module that has its parameters."""
    own: dict[nn.Parameter, Optimizer] = {}
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        if not register_hook:
            raise NotOffered("register_optim_in_bwd_hooks always hooks")
        for param in params:
            if isinstance(param, dict | tuple):
                raise NotOffered("optim_dict is one of parameters, not of groups or named parameters")
            if param in own:
                raise NotOffered("optim_dict holds one optimizer a parameter")
            own[param] = optimizer_class([param], **optimizer_kwargs)
    modules = [part for part in module.modules() if own.keys() <= set(part.parameters())]
    smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
    register_optim_in_bwd_hooks(model=smallest, optim_dict=own)
    attached.update(dict.fromkeys(own.values()))


def optimizers(module: nn.Module) -> list[Optimizer]:
    """Return the optimizers of the parameters of `module`, of all calls."""
    held = [(optimizer, optimizer.param_groups[0]["params"][0]) for optimizer in attached]
    return [optimizer for param in module.parameters() for optimizer, its_param in held if its_param is param]


def wrapper_of(module: nn.Module) -> Any:
    """Return the wrapper that a recipe makes after registering hooks; it holds optimizers by name, nothing else."""
    optim_dict = {optimizer.param_groups[0]["params"][0]: optimizer for optimizer in optimizers(module)}
    return create_optim_in_bwd_wrapper(model=module, optim_dict=optim_dict)


def schedule(module: nn.Module, scheduler_class: Callable[..., Any], **kwargs: Any) -> list[Any]:
    """Start a scheduler for the first optimizer, and let the wrapper set the learning rate of the others."""
    scheduler = scheduler_class(optimizer=optimizers(module)[0], **kwargs)
    wrapper_of(module).set_lr_scheduler(scheduler)
    return [scheduler]


def state_dict(module: nn.Module) -> Any:
    """Return the wrapper's state dict."""
    return wrapper_of(module).state_dict()


def load_state_dict(module: nn.Module, state: Any) -> None:
    """Load the state dict with the wrapper."""
    wrapper_of(module).load_state_dict(state)
