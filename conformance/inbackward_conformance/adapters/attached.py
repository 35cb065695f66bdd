"""What adapters do in the place of a library's user: keep the optimizers at hand, and name the module to hook."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn
    from torch.optim import Optimizer


class Attached:
    """Optimizers in order of attachment, for as long as something else keeps them.

    A user keeps them in a variable. An adapter that did would keep alive what the library lets go.
    """

    def __init__(self) -> None:
        self._optimizers: list[weakref.ref[Optimizer]] = []

    def add(self, optimizer: Optimizer) -> None:
        """Remember one more."""
        self._optimizers.append(weakref.ref(optimizer))

    def of(self, module: nn.Module) -> list[Optimizer]:
        """Return those that hold parameters of `module`, in order of its parameters, then of attachment."""
        alive = [optimizer for reference in self._optimizers if (optimizer := reference())]
        found = [optimizer for param in module.parameters() for optimizer in alive if _holds(optimizer, param)]
        return list(dict.fromkeys(found))


def part_with(module: nn.Module, params: Iterable[object]) -> nn.Module:
    """Return the smallest part of `module` that holds all of `params`, or `module` itself.

    For libraries that hook a module as a whole: whoever has two optimizers for two layers calls them with a layer each.
    """
    wanted = set(map(id, params))
    parts = [part for part in module.modules() if wanted <= set(map(id, part.parameters()))]
    return min(parts, key=lambda part: sum(1 for _ in part.parameters()), default=module)


def _holds(optimizer: Optimizer, param: nn.Parameter) -> bool:
    return any(held is param for group in optimizer.param_groups for held in group["params"])
