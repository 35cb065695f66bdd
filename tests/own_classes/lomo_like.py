"""Like LOMO: plain gradient descent in a backward of its own. No state, no parameter groups, one learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from own_classes.fused_backward import fused_backward
from own_classes.one_by_one import OneByOne

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


class Lomo(OneByOne):
    """Call `optimizer.fused_backward(loss)` in the place of `loss.backward()` and `optimizer.step()`."""

    def __init__(self, params: Iterable[Any], lr: float = 1e-3) -> None:
        if lr < 0:
            raise ValueError(f"lr={lr}: expected 0 or more")
        super().__init__(params, {"lr": lr})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self.param_groups or set(param_group) - {"params"}:
            raise ValueError("Lomo has one learning rate for all parameters: give it parameters, not groups")
        super().add_param_group(param_group)

    def fused_backward(self, loss: Tensor, **kwargs: Any) -> None:
        fused_backward(loss, [self], **kwargs)

    def update(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        param.add_(grad, alpha=-float(group["lr"]))
