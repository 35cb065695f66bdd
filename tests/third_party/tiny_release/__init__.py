"""Optimizer in backward as most people write it: a hook that steps and frees.

It stands for a library that knows nothing of the suite; `conformance.py` is all that its author adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn
    from torch.optim import Optimizer

__all__ = ["release", "released"]


def release(params: Iterable[Any], make_optimizer: Callable[[Any], Optimizer]) -> None:
    """Step each parameter as soon as its gradient is there, and free the gradient."""
    for param in dict.fromkeys(params):
        if hasattr(param, "released_by"):
            raise ValueError("a parameter is released already: one optimizer a parameter")
        param.released_by = make_optimizer(param)
        param.register_post_accumulate_grad_hook(_step)


def released(module: nn.Module) -> list[Optimizer]:
    """Return the optimizers of a module's parameters."""
    return [param.released_by for param in module.parameters() if hasattr(param, "released_by")]


def _step(param: Any) -> None:
    param.released_by.step()
    param.grad = None
