"""What everybody writes first: a post-accumulate-grad hook that steps and frees.

Correct enough for the requirements that its mutants are caught by; each mutant replaces one method.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from mutants.registry import base

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn
    from torch.optim import Optimizer


@base
class Naive:
    """One optimizer a parameter and call, kept on the parameter."""

    def apply(
        self,
        optimizer_class: type[Optimizer],
        params: Iterable[Any],
        optimizer_kwargs: dict[str, Any],
        register_hook: bool = True,
    ) -> None:
        """Attach."""
        if inspect.signature(optimizer_class.step).parameters["closure"].default is inspect.Parameter.empty:
            raise TypeError(f"{optimizer_class.__name__} needs a closure: step it by hand")
        listed = list(params)
        for param in dict.fromkeys(listed):
            optimizer = self.build(optimizer_class, [param] * sum(param is other for other in listed), optimizer_kwargs)
            self.attach_to(param, optimizer, hook=register_hook)

    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        """Make the optimizer of one parameter."""
        return optimizer_class(params, **kwargs)

    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        """Keep the optimizer, and hook the parameter unless it is hooked already."""
        param.__dict__.setdefault("optimizers", []).append(optimizer)
        if hook and not hasattr(param, "hook"):
            param.hook = param.register_post_accumulate_grad_hook(self.on_gradient)

    def on_gradient(self, param: Tensor) -> None:
        """Step and free."""
        for optimizer in self.optimizers_of(param):
            self.step(optimizer, param)
        param.grad = None

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        """Step one optimizer."""
        optimizer.step()

    def optimizers_of(self, param: Tensor) -> list[Optimizer]:
        """Return what is attached to one parameter."""
        return getattr(param, "optimizers", [])

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        """Return what is attached to the parameters of a module."""
        return [optimizer for param in module.parameters() for optimizer in self.optimizers_of(param)]

    def detach(self, module: nn.Module) -> None:
        """Forget optimizers and hook."""
        for param in module.parameters():
            param.__dict__.pop("optimizers", None)
            if hook := param.__dict__.pop("hook", None):
                hook.remove()
