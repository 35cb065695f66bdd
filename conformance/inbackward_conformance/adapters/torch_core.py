"""Torch's own `_apply_optimizer_in_backward`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

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
    spelling: ClassVar = {
        "import": "from torch.distributed.optim import _apply_optimizer_in_backward, _get_in_backward_optimizers",
        "apply": (
            "_apply_optimizer_in_backward("
            "{optimizer_class}, {params}, {optimizer_kwargs}, register_hook={register_hook})"
        ),
        "optimizers": "_get_in_backward_optimizers({module})",
    }

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        """Return what is attached to the parameters of `module`."""
        found: list[Optimizer] = _get_in_backward_optimizers(module)
        return found
