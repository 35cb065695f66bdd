"""Like AdaLOMO: steps by a factored second moment, inside a plain `loss.backward()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from own_classes.one_by_one import OneByOne

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

EPS = 1e-8


class AdaLomo(OneByOne):
    """Call `release_gradients` on it; without, it is an ordinary optimizer."""

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, *, decay: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        if lr < 0 or not 0 <= decay < 1:
            raise ValueError(f"lr={lr}, decay={decay}: expected a learning rate of 0 or more, and a decay below 1")
        super().__init__(params, {"lr": lr, "decay": decay, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        if any(param.is_complex() for param in self.param_groups[-1]["params"]):
            del self.param_groups[-1]
            raise ValueError("AdaLomo takes real parameters only: pass those that are complex as torch.view_as_real")

    def update(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if grad.is_sparse:
            raise RuntimeError("AdaLomo takes dense gradients only: use nn.Embedding(…, sparse=False)")
        lr = float(group["lr"])
        second_moment = _second_moment(self.state[param], grad.square(), group["decay"])
        step = grad / (second_moment.sqrt() + EPS)
        step /= _rms(step).clamp_min(1.0)
        param.mul_(1 - lr * group["weight_decay"])
        param.add_(step * _rms(param).clamp_min(1e-3), alpha=-lr)


def _second_moment(state: dict[str, Tensor], square: Tensor, decay: float) -> Tensor:
    """Average the squares over time: those of a matrix by rows and by columns, others one by one."""
    if square.dim() < 2:
        return _average(state, "second_moment", square, decay)
    rows = _average(state, "rows", square.mean(-1, keepdim=True), decay)
    columns = _average(state, "columns", square.mean(-2, keepdim=True), decay)
    return rows * columns / (rows.mean(-2, keepdim=True) + EPS)


def _average(state: dict[str, Tensor], key: str, value: Tensor, decay: float) -> Tensor:
    if key not in state:
        state[key] = torch.zeros_like(value)
    return state[key].mul_(decay).add_(value, alpha=1 - decay)


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()
