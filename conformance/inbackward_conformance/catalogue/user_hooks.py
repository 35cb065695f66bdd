"""Hooks that users register on parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_NORM = 0.01


def clipped(grad: Tensor) -> Tensor:
    """Return the gradient with its norm clipped, for `register_hook`."""
    scaled: Tensor = grad * (LARGEST_NORM / grad.norm()).clamp(max=1.0)
    return scaled


def clip(param: Tensor) -> None:
    """Clip the norm of `param.grad`, for `register_post_accumulate_grad_hook`."""
    assert param.grad is not None, "a user's post-accumulate-grad hook finds no gradient"
    param.grad = clipped(param.grad)


def drop(param: Tensor) -> None:
    """Set `param.grad` to None, for `register_post_accumulate_grad_hook`."""
    param.grad = None


class HookError(RuntimeError):
    """The error of `fail`."""


def fail(_: Tensor) -> None:
    """Raise, for `register_hook`."""
    raise HookError("a user's hook raises")


def overflow(grad: Tensor) -> Tensor:
    """Return infinite values, for `register_hook`."""
    infinite: Tensor = grad * float("inf")
    return infinite
