"""What is said where a second backward over a graph needs what a step has changed.

Autograd raises an error then, as in the standard loop. But it speaks of an in-place operation, which the user has not
written, and tells nothing of steps.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import BackwardCFunction

from inbackward import _engine
from inbackward._names import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_RAW = "_raw_saved_"
_STALE = "modified by an inplace operation"


def explain_stale_graph(stepped: Iterable[torch.Tensor]) -> None:
    """Has a further backward over the graph of the running one explain what it cannot compute any more.

    Call it at the end of a pass that retains its graph, with the parameters that were stepped. Custom autograd
    Functions are left out: they need not read all that they have saved.
    """
    by_address = {address: param for param in stepped if (address := _address(param))}
    for node in _engine.nodes_of(_engine.losses()) if by_address else ():
        for name in () if isinstance(node, BackwardCFunction) else _raw_names(node.__class__):
            address = _address_of_saved(node, name)
            if address in by_address and _engine.mark(node, f"inbackward explains {name}"):
                node.register_prehook(_explain(by_address[address], name.removeprefix("_raw")))


def _explain(param: torch.Tensor, saved: str) -> Callable[[tuple[torch.Tensor, ...]], None]:
    @_engine.run_eagerly
    def explain(_: tuple[torch.Tensor, ...]) -> None:
        try:
            getattr(_engine.current_node(), saved)
        except RuntimeError as error:
            if _STALE not in str(error):
                return  # the node itself raises it
            msg = (
                f"A second backward over a graph needs {name_of(param)} as it was in forward, but it was stepped in "
                f"the first one, as the standard loop steps it between the two. To add up the gradients of several "
                f"losses, run backward of all but the last inside `with handle.accumulate():`, where handle = "
                f"inbackward.step_in_backward(optimizer); or run one backward of their sum."
            )
            raise RuntimeError(msg) from error

    return explain


@cache
def _raw_names(kind: Any) -> list[str]:
    return [name for name in dir(kind) if name.startswith(_RAW)]


def _address_of_saved(node: Any, name: str) -> int:
    """Where the tensor is that a node has saved; 0 for several, and for what hooks have packed.

    To unpack that may compute it anew.
    """
    try:
        saved: Any = getattr(node, name)
        return _address(saved.data) if isinstance(saved.data, torch.Tensor) else 0
    except (RuntimeError, AttributeError):  # freed; a list; an older torch, which does not tell what was packed
        return 0


def _address(tensor: torch.Tensor) -> int:
    """Where the memory of a tensor begins; 0 where it has none of its own."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0
