"""Custom optimizer classes, for behaviour that no class in `torch.optim` has."""

from __future__ import annotations

from collections import Counter
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


class LineSearchByDefault(LineSearch):
    """The same, whose signature says that the closure may be left out."""

    needs_closure = True

    def step(self, closure: Callable[[], Tensor] | None = None) -> None:  # type: ignore[override]
        """Evaluate, step, evaluate."""
        if closure is None:
            raise RuntimeError("LineSearchByDefault needs a closure")
        super().step(closure)


class OutOfRange(RuntimeError):
    """The error of `Stumbling`."""


class Stumbling(SGD):
    """SGD that raises `OutOfRange` when it steps a parameter of one shape for the second time."""

    def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.9, shape: tuple[int, ...] = ()) -> None:
        super().__init__(params, lr=lr, momentum=momentum)
        self._shape = shape
        self._steps: Counter[Tensor] = Counter()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step, or raise."""
        params = [param for group in self.param_groups for param in group["params"]]
        of_shape = [param for param in params if param.grad is not None and param.shape == self._shape]
        self._steps.update(of_shape)
        if any(self._steps[param] == 2 for param in of_shape):  # noqa: PLR2004
            raise OutOfRange("the second step is out of range")
        super().step()


class CountsCalls(Optimizer):
    """A user's own class that counts the calls of `step` in its groups, and takes smaller and smaller steps."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "calls": 0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Count, and step every parameter that has a gradient."""
        for group in self.param_groups:
            group["calls"] += 1
            for param in group["params"]:
                if param.grad is not None:
                    param.sub_(param.grad, alpha=group["lr"] / group["calls"])


class NormalizedDescent(Optimizer):
    """A user's own class that divides every gradient by the norm of all of them."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        held = [
            (param, group["lr"]) for group in self.param_groups for param in group["params"] if param.grad is not None
        ]
        norm = torch.nn.utils.get_total_norm([param.grad for param, _ in held])
        for param, lr in held:
            param.sub_(param.grad / (norm + 1e-6), alpha=lr)


class NoisyDescent(Optimizer):
    """A user's own class that adds noise to every step."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    param.sub_(param.grad + 0.01 * torch.randn_like(param), alpha=group["lr"])


class DecaysAll(Optimizer):
    """A user's own class that decays every parameter, whether it has a gradient or not."""

    def __init__(self, params: Any, lr: float = 0.1, weight_decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step every parameter."""
        for group in self.param_groups:
            for param in group["params"]:
                param.mul_(1 - group["lr"] * group["weight_decay"])
                if param.grad is not None:
                    param.sub_(param.grad, alpha=group["lr"])
