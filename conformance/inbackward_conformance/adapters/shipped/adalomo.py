"""Adapter of lomo-optim: `AdaLomo`, whose `fused_backward(loss, lr)` is called in the place of `loss.backward()`.

AdaLomo has no `step()`: in the standard loop, its own update is called after backward, for an AdaLomo without hooks and
loss scale. It makes its state by `.cuda()`, and keeps it by names of parameters, not in `state` or its state dict.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from lomo_optim import AdaLomo

from inbackward_conformance import NotOffered, OwnOptimizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

distribution = "lomo-optim"
spelling = "source"
requires_device = "cuda"
variants: list[dict[str, Any]] = [{"weight_decay": 0.1}, {"clip_grad_value": 0.01}, {"loss_scale": 0}]
lacks = ("groups", "sparse", "complex", "zero_dim")
own_optimizers = [OwnOptimizer("lomo_optim:AdaLomo", {"lr": 0.1}, variants, keeps_state=True, lacks=lacks)]

made: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()


class Stepped(AdaLomo):  # type: ignore[misc]
    """An AdaLomo without hooks, since its parameters require no gradient while it is made: it is stepped by hand."""

    def __init__(self, params: Any, **options: Any) -> None:
        params = torch.nn.ParameterList(params)
        required = [param.requires_grad for param in params]
        super().__init__(params.requires_grad_(requires_grad=False), **{**options, "loss_scale": 0})
        for param, requires_grad in zip(params, required, strict=True):
            param.requires_grad_(requires_grad)

    def step(self, closure: Any = None) -> None:
        self.lr = self.param_groups[0]["lr"]
        self.step_num += 1
        self.grad_func(0)


def standard_optimizer(optimizer_class: Any, params: Any, optimizer_kwargs: dict[str, Any]) -> Any:
    if optimizer_class is not AdaLomo:
        raise NotOffered("it has optimizers of its own only")
    return Stepped(params, **optimizer_kwargs)


def attach(module: torch.nn.Module, assignments: Sequence[Any]) -> None:
    for optimizer_class, given, optimizer_kwargs, register_hook in assignments:
        if optimizer_class is not AdaLomo or not register_hook:
            raise NotOffered("it has an optimizer of its own only, which always hooks")
        if len(assignments) > 1 or optimizers(module):
            raise NotOffered("fused_backward runs backward for one AdaLomo")
        params = list(map(id, given))
        parts = [part for part in module.modules() if {*map(id, part.parameters())} == {*params}]
        if not parts or len(params) > len({*params}):
            raise NotOffered("an AdaLomo is given a model, or a part of it that has these parameters alone")
        made[AdaLomo(parts[0], **optimizer_kwargs)] = None


def optimizers(module: torch.nn.Module) -> list[Any]:
    parts, params = {*module.modules()}, {*module.parameters()}  # between forward and backward, FSDP has others
    return [each for each in made if each.model in parts or params & {*each.param_groups[0]["params"]}]


def backward(loss: Tensor, module: torch.nn.Module, **kwargs: Any) -> None:
    attached = optimizers(module)
    if attached and kwargs:
        raise NotOffered("fused_backward takes a loss and a learning rate")
    for optimizer in attached:
        optimizer.fused_backward(loss, optimizer.param_groups[0]["lr"])
    if not attached:
        loss.backward(**kwargs)
