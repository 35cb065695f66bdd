"""Optimizers with nested states, and implementations that step them inside backward: soundly, or not quite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.optim import SGD, Optimizer

from inbackward_conformance import OwnOptimizer
from recipe import TutorialRecipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

REASON = "gradients are summed in another order"


def spelling(name: str) -> dict[str, str]:
    """Returns the call templates of the class of that name."""
    return {
        "import": f"from deep_states import {name}\nadapter = {name}()",
        "apply": "adapter.apply({optimizer_class}, {params}, {optimizer_kwargs})",
        "optimizers": "adapter.optimizers({module})",
        "functional_optimizer": "adapter.functional_optimizer({optimizer_class}, {params}, {options})",
    }


class Projector:
    """What GaLore keeps in its states: an object without `__eq__`."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.steps = 0
        self.matrix: Tensor | None = None


class NestedSGD(Optimizer):
    """Momentum in a dict of lists, and a projector beside it."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    state = self.state[param] or self.make_state(param)
                    state["left"]["buffers"][0].mul_(0.9).add_(param.grad)
                    state["projector"].steps += 1
                    state["projector"].matrix = param.grad.clone()
                    param.add_(state["left"]["buffers"][0], alpha=-group["lr"])

    def make_state(self, param: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[param]
        state |= {"left": {"buffers": [torch.zeros_like(param)]}, "projector": Projector(2)}
        return state


class GuardedSGD(NestedSGD):
    """Keeps a dict as well whose keys have no order, so that nobody can compare it."""

    def make_state(self, param: Tensor) -> dict[str, Any]:
        state = super().make_state(param)
        state["guard"] = {Projector(1): "first", Projector(2): "second"}
        return state


class Nested(TutorialRecipe):
    own_optimizers: ClassVar = [OwnOptimizer("deep_states:NestedSGD", {"lr": 0.1}, keeps_state=True)]
    spelling: ClassVar = spelling("Nested")


class Distorts(Nested):
    """Changes a tensor deep in the state after each step."""

    spelling: ClassVar = spelling("Distorts")

    def apply(
        self, optimizer_class: Any, params: Iterable[Any], optimizer_kwargs: Any, register_hook: bool = True
    ) -> None:
        class Distorted(optimizer_class):  # type: ignore[misc]
            def step(self, closure: Any = None) -> None:
                super().step(closure)
                for state in self.state.values():
                    state["left"]["buffers"][0].add_(1e-3)

        super().apply(Distorted, params, optimizer_kwargs, register_hook)


class Guarded(Nested):
    own_optimizers: ClassVar = [OwnOptimizer("deep_states:GuardedSGD", {"lr": 0.1}, keeps_state=True)]


class GuardedAndTold(Guarded):
    def state_of(self, optimizer: Optimizer, param: Tensor) -> dict[str, Any]:
        return {key: value for key, value in optimizer.state[param].items() if key != "guard"}


class GuardedAndDistorted(Guarded, Distorts):
    """Differs as well, from the second step on."""


class Inexact(TutorialRecipe):
    """Its gradients are some roundings off, which it does not declare."""

    spelling: ClassVar = spelling("Inexact")
    off = 2e-7
    functional_optimizers = ("SGD",)

    def apply(
        self, optimizer_class: Any, params: Iterable[Any], optimizer_kwargs: Any, register_hook: bool = True
    ) -> None:
        params = list(params)
        for param in params:
            param.register_hook(lambda grad: grad * (1 + self.off))
        super().apply(optimizer_class, params, optimizer_kwargs, register_hook)

    def functional_optimizer(self, optimizer_class: Any, params: Any, **options: Any) -> Any:
        return InexactFunctional(optimizer_class(params, **options), self.off)


class InexactFunctional:
    def __init__(self, optimizer: SGD, off: float) -> None:
        self._optimizer, self._off = optimizer, off
        self.state = optimizer.state
        self.param_groups = optimizer.param_groups

    def step(self, gradients: list[Tensor]) -> None:
        for param, grad in zip(self.param_groups[0]["params"], gradients, strict=True):
            self.step_param(param, grad)

    def step_param(self, param: Tensor, grad: Tensor) -> None:
        param.grad = grad * (1 + self._off)
        self._optimizer.step()
        param.grad = None


class Rounds(Inexact):
    rounding = (1e-5, REASON)
    spelling: ClassVar = spelling("Rounds")


class RoundsTooMuch(Rounds):
    spelling: ClassVar = spelling("RoundsTooMuch")
    off = 0.1
