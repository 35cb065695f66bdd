"""The parameters of optimizers, and which of them can have gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch.optim import Optimizer


def listed_params(optimizer: Optimizer) -> list[torch.Tensor]:
    """The parameters that the groups of an optimizer list, in order."""
    return [param for group in optimizer.param_groups for param in group["params"]]


def can_have_gradient(param: torch.Tensor) -> bool:
    """Whether the dtype of a parameter is one that autograd computes gradients of."""
    return param.is_floating_point() or param.is_complex()
