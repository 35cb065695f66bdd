"""Two functions of torch that have no hook, and change what optimizers inside backward need to know.

`torch.utils.swap_tensors` gives a parameter another tensor under it and silently drops its hooks. `Module.to` and
`load_state_dict` call it after `torch.__future__.set_swap_module_params_on_conversion(True)`, and for wrapper
subclasses always. `GradScaler.scale` returns a product like any other. So from the first attachment on, the functions
here take their place: they call torch's own, and note what it did. Code that imported `swap_tensors` before that gets
an error from it, since attachments keep a weak reference to their parameter; without one, training would silently stop.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol

import torch

from inbackward import _engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.autograd.graph import Node

_SCALED = "inbackward: the loss is scaled"


class Swappable(Protocol):
    """The hooks of a parameter."""

    def begin_swap(self) -> None:
        """Lets the parameter be swapped."""

    def end_swap(self, *, swapped: bool) -> None:
        """Lets it be swapped no more, and follows if it was."""


class _Noted:
    """What was noted so far."""

    calls = False
    scaled_losses = False


def note_calls(hooks_of: Callable[[torch.Tensor], Swappable | None]) -> None:
    """Has swaps of tensors and scaled losses noted from now on; called again, it changes nothing.

    Args:
        hooks_of: Gives the hooks of a parameter, if anything is attached to it.
    """
    if not _Noted.calls:
        _Noted.calls = True
        torch.utils.swap_tensors = _noting_swaps(torch.utils.swap_tensors, hooks_of)
        scaler: Any = torch.amp.GradScaler
        scaler.scale = _marking_losses(scaler.scale)


def has_marked_losses() -> bool:
    """Whether any loss was scaled yet."""
    return _Noted.scaled_losses


def is_marked_as_scaled(node: Node) -> bool:
    """Whether a node computes what a GradScaler has scaled."""
    return _engine.is_marked(node, _SCALED)


def _noting_swaps(
    swap_tensors: Callable[..., None], hooks_of: Callable[[torch.Tensor], Swappable | None]
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    @wraps(swap_tensors)
    def swap(t1: torch.Tensor, t2: torch.Tensor) -> None:
        hooks = [each for each in map(hooks_of, (t1, t2)) if each is not None]
        swapped = False
        for each in hooks:
            each.begin_swap()
        try:
            swap_tensors(t1, t2)
            swapped = True
        finally:
            for each in hooks:
                each.end_swap(swapped=swapped)

    return swap


def _marking_losses(scale: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(scale)
    def scale_and_mark(scaler: torch.amp.GradScaler, outputs: Any) -> Any:
        scaled = scale(scaler, outputs)
        if scaler.is_enabled():
            for each in scaled if isinstance(scaled, list | tuple) else [scaled]:
                if isinstance(each, torch.Tensor) and each.grad_fn is not None:
                    _engine.mark(each.grad_fn, _SCALED)
                    _Noted.scaled_losses = True
        return scaled

    return scale_and_mark
