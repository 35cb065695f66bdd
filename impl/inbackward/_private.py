"""What `_engine` needs of the autograd engine and torch offers no public name for, looked up when it is imported.

A torch that lacks one of these is refused then, and not in the middle of a training. `tests/test_impl_engine.py` pins
the behaviour relied on.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, requires
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType


def _find(module: str, *names: str) -> Any:
    """Gives what a module calls by these names, one inside the other.

    Raises:
        ImportError: This torch has no such name.
    """
    try:
        found: Any = importlib.import_module(module)
        for name in names:
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        what = ".".join((module, *names))
        msg = f"inbackward needs {what}, which torch {torch.__version__} lacks. Install one that it knows: {_known()}."
        raise ImportError(msg) from error
    return found


def _known() -> str:
    try:
        return next(each for each in requires("inbackward") or () if each.startswith("torch"))
    except (PackageNotFoundError, StopIteration):
        return "see its changelog"


current_task: Callable[[], int] = _find("torch._C", "_current_graph_task_id")
"""The number of the innermost backward pass that runs in this thread; no two passes have the same."""

current_node: Callable[[], Any] = _find("torch._C", "_current_autograd_node")
"""The node that the engine executes in this thread; None if there is none."""

keeps_graph: Callable[[], bool] = _find("torch._C", "_autograd", "_get_current_graph_task_keep_graph")
"""Whether the backward pass that runs in this thread was told to retain the graph."""

queue_callback: Callable[[Callable[[], None]], None] = _find(
    "torch.autograd", "Variable", "_execution_engine", "queue_callback"
)
"""Has the engine call something at the end of the pass that runs in this thread."""

is_grad_enabled: Callable[[], bool] = _find("torch._C", "is_grad_enabled")
set_grad_enabled: Callable[[bool], None] = _find("torch._C", "_set_grad_enabled")
"""Without the context manager around it, in a fifth of its time."""

storage_use_count: Callable[[int], int] = _find("torch._C", "_storage_Use_Count")
"""How many references there are to the storage at an address."""

run_backward: CodeType = _find("torch.autograd.graph", "_engine_run_backward", "__code__")
"""The code of the function in which a thread runs a backward pass."""

is_wrapper: Callable[[Any], bool] = _find("torch.utils._python_dispatch", "is_traceable_wrapper_subclass")
"""Whether a tensor is a subclass around others."""

dynamo_frames: Any = _find("torch._C", "_dynamo", "eval_frame")
disable_dynamo: Callable[[Any], Any] = _find("torch", "_disable_dynamo")
"""What keeps `torch.compile` from tracing a function."""
