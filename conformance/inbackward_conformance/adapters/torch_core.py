"""Torch's own `_apply_optimizer_in_backward`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.distributed.optim.apply_optimizer_in_backward import (
    _apply_optimizer_in_backward,
    _get_in_backward_optimizers,
)

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class TorchCore:
    """Torch's own functions, under their own names."""

    apply = staticmethod(_apply_optimizer_in_backward)

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        """Return what is attached to the parameters of `module`."""
        found: list[Optimizer] = _get_in_backward_optimizers(module)
        return found
