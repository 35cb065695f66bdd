"""Like heavyball: an optimizer is made by a function, of transforms that keep their state in dicts, nested.

One of them keeps an object, which compares by identity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from own_classes.one_by_one import OneByOne

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    Transform = Callable[[dict[str, Any], dict[str, Any], Tensor, Tensor], Tensor]
    """From a state, the group, an update and the parameter to the next update."""

REFRESH = 4


class Projector:
    """The direction of a gradient."""

    def __init__(self, grad: Tensor) -> None:
        self.direction: Tensor = grad / (grad.norm() + 1e-8)
        self.uses = 0

    def emphasise(self, update: Tensor) -> Tensor:
        """Return the update with more of it in the direction."""
        self.uses += 1
        return update.add(self.direction * (self.direction * update).sum())


torch.serialization.add_safe_globals([Projector])


def along_gradient(state: dict[str, Any], _group: dict[str, Any], update: Tensor, _param: Tensor) -> Tensor:
    projector = state.get("projector")
    if projector is None or projector.uses == REFRESH:
        state["projector"] = projector = Projector(update)
    emphasised: Tensor = projector.emphasise(update)
    return emphasised


def by_adam(state: dict[str, Any], group: dict[str, Any], update: Tensor, _param: Tensor) -> Tensor:
    if not state:
        state["count"] = 0
        state["moments"] = {"first": torch.zeros_like(update), "second": torch.zeros_like(update)}
    state["count"] += 1
    first: Tensor = state["moments"]["first"]
    second: Tensor = state["moments"]["second"]
    first.lerp_(update, 1 - group["betas"][0])
    second.lerp_(update.square(), 1 - group["betas"][1])
    corrections: list[float] = [1 - beta ** state["count"] for beta in group["betas"]]
    return (first / corrections[0]) / ((second / corrections[1]).sqrt() + 1e-8)


def with_decay(_state: dict[str, Any], group: dict[str, Any], update: Tensor, param: Tensor) -> Tensor:
    return update.add(param, alpha=group["weight_decay"])


class Chain(OneByOne):
    """Steps along what the transforms, one after the other, make of a gradient."""

    def __init__(self, params: Iterable[Any], transforms: Sequence[Transform], defaults: dict[str, Any]) -> None:
        if defaults["lr"] < 0:
            raise ValueError(f"lr={defaults['lr']}: expected 0 or more")
        self._transforms = {transform.__name__: transform for transform in transforms}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        if any(param.is_complex() for param in self.param_groups[-1]["params"]):
            del self.param_groups[-1]
            raise ValueError("these transforms take real parameters only: pass complex ones as torch.view_as_real")

    def update(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if grad.is_sparse:
            raise RuntimeError("these transforms take dense gradients only: use nn.Embedding(…, sparse=False)")
        state = self.state[param]
        for name, transform in self._transforms.items():
            grad = transform(state.setdefault(name, {}), group, grad, param)
        param.add_(grad, alpha=-float(group["lr"]))


def projected_adam(
    params: Iterable[Any],
    lr: float = 1e-3,
    *,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    chain: type[Chain] = Chain,
) -> Chain:
    """Return Adam with decoupled decay, over gradients that are emphasised in their direction of four steps."""
    defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
    return chain(params, (along_gradient, by_adam, with_decay), defaults)
