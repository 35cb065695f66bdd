"""Helpers of adapters: a list of attached optimizers, and the choice of the module to hook."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn
    from torch.optim import Optimizer


class AttachedOptimizers:
    """Weak references to optimizers, in order of attachment.

    An adapter must not keep alive what the library frees, nor grow with every model that was dropped.
    """

    def __init__(self) -> None:
        self._optimizers: weakref.WeakKeyDictionary[Optimizer, None] = weakref.WeakKeyDictionary()

    def add(self, optimizer: Optimizer) -> None:
        """Add an optimizer."""
        self._optimizers[optimizer] = None

    def of(self, module: nn.Module) -> list[Optimizer]:
        """Return the optimizers that hold parameters of `module`, in order of its parameters, then of attachment."""
        alive = list(self._optimizers)
        holding = (optimizer for param in module.parameters() for optimizer in alive if _holds(optimizer, param))
        return list(dict.fromkeys(holding))


def smallest_module_with(module: nn.Module, params: Iterable[object]) -> nn.Module:
    """Return the smallest submodule of `module` that has all of `params`; by default, `module` itself.

    For libraries that hook whole modules: a user with two optimizers for two layers passes each layer separately.
    """
    wanted = set(map(id, params))
    submodules = [submodule for submodule in module.modules() if wanted <= set(map(id, submodule.parameters()))]
    return min(submodules, key=lambda submodule: sum(1 for _ in submodule.parameters()), default=module)


def _holds(optimizer: Optimizer, param: nn.Parameter) -> bool:
    return any(item is param for group in optimizer.param_groups for item in group["params"])
