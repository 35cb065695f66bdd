"""torchtune: `register_optim_in_bwd_hooks`, and `create_optim_in_bwd_wrapper` for checkpoints and schedules.

As its recipes use them: a dict of one optimizer a parameter, hooks on all parameters of the model, and a scheduler over
the first of the optimizers, which the wrapper spreads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torchtune.training import create_optim_in_bwd_wrapper, register_optim_in_bwd_hooks

from inbackward_conformance.adapters.attached import Attached, part_with
from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from inbackward_conformance.adapters.implementation import BoundAssignment


RECIPE = """\
from torchtune.training import create_optim_in_bwd_wrapper, register_optim_in_bwd_hooks

optim_dicts = []

def attach(model, assignments):
    own = {param: cls([param], **kwargs) for cls, params, kwargs, _ in assignments for param in params}
    register_optim_in_bwd_hooks(model=model, optim_dict=own)
    optim_dicts.append(own)

def start_schedule(model, scheduler_class, **options):
    wrapper = create_optim_in_bwd_wrapper(model=model, optim_dict=optim_dicts[-1])
    scheduler = scheduler_class(optimizer=next(iter(wrapper.optim_map.values())), **options)
    wrapper.set_lr_scheduler(scheduler)
    return [scheduler]
"""
"""What its recipes do with it, as a script has it."""


class Torchtune:
    """All assignments of a model go into one dict of optimizers."""

    distribution = "torchtune"
    spelling: ClassVar = {
        "import": RECIPE,
        "attach": "attach({module}, {assignments})",
        "optimizers": "[own[param] for own in optim_dicts for param in {module}.parameters() if param in own]",
        "schedule": "start_schedule({module}, {scheduler_class}, {options})",
        "state_dict": "create_optim_in_bwd_wrapper({module}, optim_dicts[-1]).state_dict()",
        "load_state_dict": "create_optim_in_bwd_wrapper({module}, optim_dicts[-1]).load_state_dict({state})",
    }

    def __init__(self) -> None:
        self._attached = Attached()

    def attach(self, module: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Make the dict, and register hooks on the model."""
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
        register_optim_in_bwd_hooks(model=part_with(module, optim_dict), optim_dict=optim_dict)
        for optimizer in optim_dict.values():
            self._attached.add(optimizer)

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        """Return the values of the dict."""
        return self._attached.of(module)

    def schedule(
        self, module: nn.Module, scheduler_class: Callable[..., LRScheduler], **kwargs: Any
    ) -> list[LRScheduler]:
        """Start one over the first optimizer, and give it to the wrapper, which makes its `step` set the others' lr."""
        scheduler = scheduler_class(optimizer=self.optimizers(module)[0], **kwargs)
        self._wrapper(module).set_lr_scheduler(scheduler)
        return [scheduler]

    def state_dict(self, module: nn.Module) -> Any:
        """Return the wrapper's."""
        return self._wrapper(module).state_dict()

    def load_state_dict(self, module: nn.Module, state: Any) -> None:
        """Load by the wrapper."""
        self._wrapper(module).load_state_dict(state)

    def _wrapper(self, module: nn.Module) -> Any:
        """Return the wrapper that a recipe makes right after the hooks; it holds nothing but optimizers by name."""
        optim_dict = {
            param: optimizer
            for optimizer in self.optimizers(module)
            for group in optimizer.param_groups
            for param in group["params"]
        }
        return create_optim_in_bwd_wrapper(model=module, optim_dict=optim_dict)
