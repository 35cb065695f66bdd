"""Adapter of PyTorch's tutorial "How to save memory by fusing the optimizer step into the backward pass".

A dict holds one optimizer for each parameter; a post-accumulate-grad hook looks its parameter up, steps and zeroes:
https://docs.pytorch.org/tutorials/intermediate/optimizer_step_in_backward_tutorial.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from inbackward_conformance.adapters.attached import AttachedOptimizers
from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn
    from torch.optim import Optimizer


RECIPE = """\
import weakref

attached = weakref.WeakKeyDictionary()  # keeps nothing alive

def apply(optimizer_class, params, optimizer_kwargs):
    optimizer_dict = {param: optimizer_class([param], **optimizer_kwargs) for param in params}

    def optimizer_hook(param):
        optimizer_dict[param].step()
        optimizer_dict[param].zero_grad()

    for param, optimizer in optimizer_dict.items():
        param.register_post_accumulate_grad_hook(optimizer_hook)
        attached[optimizer] = True

def attached_to(model):
    held = [(optimizer, optimizer.param_groups[0]["params"][0]) for optimizer in attached]
    return [optimizer for param in model.parameters() for optimizer, its_param in held if its_param is param]
"""
"""What `TutorialRecipe` does, for scripts."""


class TutorialRecipe:
    """The tutorial's recipe, for any parameters instead of `model.parameters()`."""

    distribution = "torch"
    spelling: ClassVar = {
        "import": RECIPE,
        "apply": "apply({optimizer_class}, {params}, {optimizer_kwargs})",
        "optimizers": "attached_to({module})",
    }

    def __init__(self) -> None:
        self._attached = AttachedOptimizers()

    def apply(
        self,
        optimizer_class: type[Optimizer],
        params: Iterable[Any],
        optimizer_kwargs: dict[str, Any],
        register_hook: bool = True,
    ) -> None:
        """Make an optimizer for each parameter, and register the hook that steps it."""
        params = list(params)
        if not register_hook:
            raise NotOffered("the recipe is its hook")
        if any(isinstance(param, dict | tuple) for param in params):
            raise NotOffered("the recipe makes its dict of parameters, not of groups or named parameters")
        optimizer_dict = {param: optimizer_class([param], **optimizer_kwargs) for param in params}

        def optimizer_hook(param: Tensor) -> None:
            optimizer_dict[param].step()
            optimizer_dict[param].zero_grad()

        for param, optimizer in optimizer_dict.items():
            param.register_post_accumulate_grad_hook(optimizer_hook)
            self._attached.add(optimizer)

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        """Return the optimizers of the parameters of `module`."""
        return self._attached.of(module)
