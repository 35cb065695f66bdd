"""Adapter of lomo-optim: `Lomo`, whose `fused_backward(loss, lr)` is called in the place of `loss.backward()`.

Lomo has no `step()`: in the standard loop, its own update is called after backward, for a Lomo without hooks. AdaLomo
has an adapter of its own.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from lomo_optim import Lomo

from inbackward_conformance import NotOffered, OwnOptimizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from inbackward_conformance.adapters.implementation import BoundAssignment

distribution = "lomo-optim"
spelling = "source"
lacks = ("groups", "sparse", "complex")
own_optimizers = [OwnOptimizer("lomo_optim:Lomo", {"lr": 0.1}, [{"weight_decay": 0.1}], lacks=lacks)]

made: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()


class Stepped(Lomo):  # type: ignore[misc]
    """A Lomo without hooks, since its parameters require no gradient while it is made: it is stepped by hand."""

    def __init__(self, params: Any, **options: Any) -> None:
        params = torch.nn.ParameterList(params)
        required = [param.requires_grad for param in params]
        super().__init__(params.requires_grad_(requires_grad=False), **options)
        for param, requires_grad in zip(params, required, strict=True):
            param.requires_grad_(requires_grad)

    def step(self, closure: Any = None) -> None:
        self.lr = self.param_groups[0]["lr"]
        self.grad_func(0)


def standard_optimizer(optimizer_class: Any, params: Any, optimizer_kwargs: dict[str, Any]) -> Any:
    if optimizer_class is not Lomo:
        raise NotOffered("it has optimizers of its own only")
    return Stepped(params, **optimizer_kwargs)


def attach(module: torch.nn.Module, assignments: Sequence[BoundAssignment]) -> None:
    optimizer_class: Any
    for optimizer_class, given, optimizer_kwargs, register_hook in assignments:
        if optimizer_class is not Lomo or not register_hook:
            raise NotOffered("a Lomo always hooks" if optimizer_class is Lomo else "it has optimizers of its own only")
        if len(assignments) > 1 or optimizers(module):
            raise NotOffered("fused_backward runs backward for one Lomo")
        params = list(map(id, given))
        parts = [part for part in module.modules() if {*map(id, part.parameters())} == {*params}]
        if not parts or len({*params}) < len(params):
            raise NotOffered("a Lomo is given a model, or a part of it that has these parameters alone")
        made[Lomo(parts[0], **optimizer_kwargs)] = None


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
