"""Like Prodigy: Adam whose step size `d` is estimated from one sum over all parameters, for the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from own_classes.fused_backward import fused_backward
from own_classes.one_by_one import OneByOne, parameters_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor
SLICE = 11
"""One in so many elements of a parameter is looked at for the estimate."""


class Prodigy(OneByOne):
    """Call `optimizer.fused_backward(loss)` in the place of `loss.backward()` and `optimizer.step()`.

    Args:
        params: parameters, or groups.
        lr: factor of the estimated step size.
        betas: decay of both moments; its root is the decay of the estimate.
        weight_decay: decoupled weight decay.
        d0: the first step size.
        in_order: sum in the order of parameters, which keeps two numbers for each until the end of backward. Else the
            sums are in the order of gradients, which is another one than that of `step()`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        d0: float = 1e-3,
        in_order: bool = False,
    ) -> None:
        if lr < 0 or d0 <= 0:
            raise ValueError(f"lr={lr}, d0={d0}: expected a learning rate of 0 or more, and a positive d0")
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "d": d0, "d0": d0, "numerator": 0.0}
        self._in_order = in_order
        self._parts: dict[int, tuple[float, float]] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        if any(param.is_complex() for param in self.param_groups[-1]["params"]):
            del self.param_groups[-1]
            raise ValueError("Prodigy takes real parameters only: pass those that are complex as torch.view_as_real")

    def fused_backward(self, loss: Tensor, **kwargs: Any) -> None:
        fused_backward(loss, [self], **kwargs)

    def update(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if grad.is_sparse:
            raise RuntimeError("Prodigy takes dense gradients only: use nn.Embedding(…, sparse=False)")
        state, d = self.state[param], group["d"]
        if not state:
            state["step"] = 0
            state["start"] = param.flatten()[::SLICE].clone()
            state["sum"] = torch.zeros_like(state["start"])
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        lr = float(group["lr"]) * d
        some = grad.flatten()[::SLICE]
        state["sum"].mul_(beta2**0.5).add_(some, alpha=lr * d / group["d0"])
        travelled = (some * (state["start"] - param.flatten()[::SLICE])).sum()
        self._add(param, travelled.item() * lr * d / group["d0"], state["sum"].abs().sum().item())
        state["exp_avg"].mul_(beta1).add_(grad, alpha=d * (1 - beta1))
        state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=d * d * (1 - beta2))
        param.mul_(1 - lr * group["weight_decay"])
        param.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt().add_(d * 1e-8), value=-lr)

    def start(self) -> None:
        """Forget the sums of a step that an error has ended."""
        self._parts.clear()

    def finish(self) -> None:
        """Estimate the step size of the next step; every group has the same."""
        keys = [id(param) for param in parameters_of([self])] if self._in_order else [0]
        parts = [self._parts[key] for key in keys if key in self._parts]
        if not parts:
            return
        numerator, denominator = map(sum, zip(*parts, strict=True))
        first = self.param_groups[0]
        numerator += first["numerator"] * first["betas"][1] ** 0.5
        for group in self.param_groups:
            group["numerator"] = numerator
            if denominator > 0:
                group["d"] = max(group["d"], numerator / denominator)

    def _add(self, param: Tensor, numerator: float, denominator: float) -> None:
        key = id(param) if self._in_order else 0
        if key in self._parts:
            before = self._parts[key]
            numerator, denominator = before[0] + numerator, before[1] + denominator
        self._parts[key] = numerator, denominator
