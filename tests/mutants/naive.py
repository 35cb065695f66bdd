"""What everybody writes first: a post-accumulate-grad hook that steps and frees.

Correct enough for the requirements that its mutants are caught by; each mutant replaces one method.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mutants.registry import base

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


@base
class Naive:
    """One optimizer a parameter and call, kept on the parameter."""

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        if inspect.signature(optimizer_class.step).parameters["closure"].default is inspect.Parameter.empty:
            raise TypeError(f"{optimizer_class.__name__} needs a closure: step it by hand")
        listed = list(params)
        for param in dict.fromkeys(listed):
            optimizer = self.build(optimizer_class, [param] * sum(param is other for other in listed), optimizer_kwargs)
            self.attach_to(param, optimizer, hook=register_hook)

    def apply_all(self, assignments: Sequence[Any]) -> None:
        """Attach what `attach` is given, as the suite does where there is no `attach`."""
        for assignment in assignments:
            self.apply(*assignment)

    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        return optimizer_class(params, **kwargs)

    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        param.__dict__.setdefault("optimizers", []).append(optimizer)
        if hook and not hasattr(param, "hook"):
            param.hook = param.register_post_accumulate_grad_hook(self.on_gradient)

    def on_gradient(self, param: Tensor) -> None:
        self.step_all(param)
        param.grad = None

    def step_all(self, param: Tensor) -> None:
        for optimizer in self.optimizers_of(param):
            self.step(optimizer, param)

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        optimizer.step()

    def optimizers_of(self, param: Tensor) -> list[Optimizer]:
        return getattr(param, "optimizers", [])

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return [optimizer for param in module.parameters() for optimizer in self.optimizers_of(param)]

    def detach(self, module: nn.Module) -> None:
        for param in module.parameters():
            param.__dict__.pop("optimizers", None)
            if hook := param.__dict__.pop("hook", None):
                hook.remove()


class Remembering(Naive):
    def __init__(self) -> None:
        self.built: list[Optimizer] = []

    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        self.built.append(super().build(optimizer_class, params, kwargs))
        return self.built[-1]
