"""Custom optimizer classes, for behaviour that no class in `torch.optim` has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

if TYPE_CHECKING:
    from collections.abc import Callable


class SignDescent(Optimizer):
    """A user's own class: it moves by the sign of a running average of the gradient."""

    def __init__(self, params: Any, lr: float = 0.01, beta: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    average = self.state[param].setdefault("average", torch.zeros_like(param))
                    average.lerp_(param.grad, 1 - group["beta"])
                    param.add_(average.sign(), alpha=-group["lr"])


class LineSearch(Optimizer):
    """A user's own class that needs a closure: it takes a step, and takes it back where the loss has grown."""

    def __init__(self, params: Any, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Callable[[], Tensor]) -> None:  # type: ignore[override]
        """Evaluate, step, evaluate."""
        with torch.enable_grad():
            before = closure()
        stepped = [
            (param, param.detach().clone(), group["lr"])
            for group in self.param_groups
            for param in group["params"]
            if param.grad is not None
        ]
        with torch.no_grad():
            for param, _, lr in stepped:
                param.sub_(param.grad, alpha=lr)
        with torch.enable_grad():
            after = closure()
        if after > before:
            with torch.no_grad():
                for param, value, _ in stepped:
                    param.copy_(value)


class OutOfRange(RuntimeError):
    """The error of `Stumbling`."""


class Stumbling(SGD):
    """SGD that raises `OutOfRange` when it steps parameters of one shape for the second time."""

    def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.9, shape: tuple[int, ...] = ()) -> None:
        super().__init__(params, lr=lr, momentum=momentum)
        self._shape = shape
        self._steps = 0

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step, or raise."""
        self._steps += 1
        if self._steps == 2 and any(p.shape == self._shape for group in self.param_groups for p in group["params"]):  # noqa: PLR2004
            raise OutOfRange("the second step is out of range")
        super().step()
