"""What is said where a second backward over a graph needs what a step has changed.

Autograd raises an error then, as in the standard loop. But it speaks of an in-place operation, which the user has not
written, and tells nothing of steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from inbackward import _engine
from inbackward._names import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch.autograd.graph import Node

_RAW = "_raw_saved_"


def explain_stale_graph(params: Iterable[torch.Tensor]) -> None:
    """Has a further backward over the graph of the running one explain what it cannot compute any more.

    Call it at the end of a pass that retains its graph.
    """
    by_address = {address: param for param in params if (address := _address(param))}
    for node in _nodes(_engine.losses()):
        for name in dir(node):
            if name.startswith(_RAW):
                for tensor in _saved(node, name):
                    if (address := _address(tensor)) in by_address:
                        node.register_prehook(_explain(by_address[address], name))


def _explain(param: torch.Tensor, name: str) -> Callable[[tuple[torch.Tensor, ...]], None]:
    # A custom autograd Function calls it `saved_tensors`.
    unpacked = name.removeprefix("_raw_" if name == f"{_RAW}tensors" else "_raw")

    @_engine.run_eagerly
    def explain(_: tuple[torch.Tensor, ...]) -> None:
        try:
            getattr(_engine.current_node(), unpacked)
        except RuntimeError as error:
            msg = (
                f"A second backward over a graph needs {name_of(param)} as it was in forward, but it was stepped in "
                f"the first one, as the standard loop steps it between the two. To add up the gradients of several "
                f"losses, run backward of all but the last inside `with handle.accumulate():`, where handle = "
                f"inbackward.step_in_backward(optimizer); or run one backward of their sum."
            )
            raise RuntimeError(msg) from error

    return explain


def _nodes(losses: Iterable[torch.Tensor]) -> Iterator[Node]:
    following = [loss.grad_fn for loss in losses]
    seen: set[Node] = set()
    while following:
        node = following.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            following += [each for each, _ in node.next_functions]


def _saved(node: Node, name: str) -> list[torch.Tensor]:
    """What a node has saved, but for what hooks have packed: to unpack that may compute it anew."""
    try:
        found: Any = getattr(node, name)
        each = found if isinstance(found, list | tuple) else [found]
        return [saved.data for saved in each if saved is not None and isinstance(saved.data, torch.Tensor)]
    except (RuntimeError, AttributeError):  # freed; an older torch, which does not tell what was packed
        return []


def _address(tensor: torch.Tensor) -> int:
    """Where the memory of a tensor begins; 0 where it has none of its own."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0
