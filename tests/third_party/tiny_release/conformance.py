"""The suite's way into tiny_release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inbackward_conformance import NotOffered
from tiny_release import release, released

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn
    from torch.optim import Optimizer


class Tiny:
    """The adapter."""

    def apply(
        self,
        optimizer_class: type[Optimizer],
        params: Iterable[Any],
        optimizer_kwargs: dict[str, Any],
        register_hook: bool = True,
    ) -> None:
        """Attach."""
        if not register_hook:
            raise NotOffered("it always hooks")
        release(params, lambda param: optimizer_class([param], **optimizer_kwargs))

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        """Return what is attached."""
        return released(module)
