"""Adapter of PyTorch's tutorial "How to save memory by fusing the optimizer step into the backward pass".

A dict holds one optimizer for each parameter; a post-accumulate-grad hook looks its parameter up, steps and zeroes:
https://docs.pytorch.org/tutorials/intermediate/optimizer_step_in_backward_tutorial.html
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn
    from torch.optim import Optimizer

distribution = "torch"
spelling = "source"

attached: weakref.WeakKeyDictionary[Optimizer, None] = weakref.WeakKeyDictionary()


def apply(
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
        attached[optimizer] = None


def optimizers(module: nn.Module) -> list[Optimizer]:
    """Return the optimizers of the parameters of `module`."""
    held = [(optimizer, optimizer.param_groups[0]["params"][0]) for optimizer in attached]
    return [optimizer for param in module.parameters() for optimizer, its_param in held if its_param is param]
