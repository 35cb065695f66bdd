"""Adapter of heavyball: `heavyball.utils.fused_hook`, with optimizers of `torch.optim`, and LaProp of heavyball.

Compilation of heavyball's steps, on by default, is switched off by `compile_mode`, in the standard loop too.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import heavyball.utils

from inbackward_conformance import NotOffered, OwnOptimizer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn
    from torch.optim import Optimizer

distribution = "heavyball"
spelling = "source"
own_optimizers = [
    OwnOptimizer("SGD", {"lr": 0.1, "momentum": 0.9}, [{"momentum": 0.0}]),
    OwnOptimizer("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    OwnOptimizer("Adam", {"lr": 0.01}),
    OwnOptimizer("heavyball:LaProp", {"lr": 0.01, "weight_decay": 0.1}, lacks=["complex", "sparse"]),
]

attached: weakref.WeakKeyDictionary[Optimizer, None] = weakref.WeakKeyDictionary()


def standard_optimizer(optimizer_class: Any, params: Any, optimizer_kwargs: dict[str, Any]) -> Any:
    heavyball.utils.compile_mode = None
    return optimizer_class(params, **optimizer_kwargs)


def apply(
    optimizer_class: Any, params: Iterable[Any], optimizer_kwargs: dict[str, Any], register_hook: bool = True
) -> None:
    params = list(params)
    if not register_hook:
        raise NotOffered("fused_hook always hooks")
    if any(isinstance(param, dict | tuple) for param in params):
        raise NotOffered("fused_hook takes parameters, not groups or named parameters")
    heavyball.utils.compile_mode = None
    attached[heavyball.utils.fused_hook(params, optimizer_class, **optimizer_kwargs)] = None


def optimizers(module: nn.Module) -> list[Optimizer]:
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(optimizer.param_groups[0]["params"])]
