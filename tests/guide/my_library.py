"""The library that the guide supposes: `fuse` attaches, and returns the optimizers that it has made.

They live as long as their parameters, and no longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from inbackward import apply_optimizer_in_backward, optimizers_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch.optim import Optimizer


def fuse(optimizer_class: type[Optimizer], params: Any, *, hook: bool = True, **options: Any) -> list[Optimizer]:
    """Make an optimizer for each parameter; with `hook`, it steps inside backward."""
    given = params if isinstance(params, Tensor) else list(params)
    apply_optimizer_in_backward(optimizer_class, given, options, register_hook=hook)
    # What can have no gradient gets none.
    return [attached[-1] for param in dict.fromkeys(_tensors(given)) if (attached := optimizers_of(param))]


def _tensors(params: Iterable[Any]) -> Iterator[Tensor]:
    for item in params:
        match item:
            case {"params": Tensor() as param} | (str(), Tensor() as param):
                yield param
            case {"params": some}:
                yield from _tensors(some)
            case _:
                yield item
