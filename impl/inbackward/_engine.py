"""What is needed of the autograd engine and torch offers no public name for; no other module touches privates.

Asked for are: which backward pass and which of its nodes are running, when the pass has ended, and whether anything
but a parameter itself still uses the parameter's memory. `tests/test_impl_engine.py` pins the behaviour relied on.
"""

# ruff: noqa: SLF001 -- this is the one module that may
from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import Variable
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import _engine_run_backward
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.autograd.graph import Node
    from torch.utils.hooks import RemovableHandle

run_eagerly = torch._disable_dynamo  # type: ignore[attr-defined]
"""Decorates what torch.compile must not trace."""

_OUTSIDE = -1  # the engine's word for "no backward is running in this thread"


class Pass:
    """One run of backward: the outermost one, with every nested (reentrant) one that has ended inside it.

    Attributes:
        at_end: What to call, with the outermost pass, before its `backward()` returns; a dict for its order and
            uniqueness. It is not called where backward raises.
        turns_to_wait: How often `at_end` lets go first whatever others have queued for the end of the pass meanwhile.
    """

    __slots__ = ("_outer", "_running", "at_end", "turns_to_wait")

    def __init__(self) -> None:
        self.at_end: dict[Callable[[Pass], None], None] = {}
        self.turns_to_wait = 0
        self._outer: Pass | None = None
        self._running = True

    @property
    def outermost(self) -> Pass:
        """The pass that this one has ended in; itself, as long as it runs and once it has ended outermost."""
        found = self
        while found._outer is not None:
            found = found._outer
        return found

    @property
    def running(self) -> bool:
        """Whether this pass, or the one that it was nested in, has yet to end."""
        return self.outermost._running

    def end(self, outer: Pass | None) -> None:
        """Ends the pass: what it was to call is left to the pass that it was nested in, if there is one."""
        if outer is not None:
            outer.at_end.update(self.at_end)
            outer.turns_to_wait = max(outer.turns_to_wait, self.turns_to_wait)
        self._outer = outer
        self._running = False
        self.at_end = {}


class _Lifeline:
    """Lives as long as the engine's record of one pass, whether that ends well or by an exception.

    The engine owns it, as a queued callback, and drops it together with the record. At that time the thread is back
    in the surrounding pass, if there is one. That is the only moment at which a nested pass can learn of the outer:
    torch shows the innermost alone.
    """

    def __init__(self, task: int, run: Pass) -> None:
        self._task = task
        self._run = run

    def __call__(self) -> None:
        """Nothing: the engine keeps callables only."""

    def __del__(self) -> None:
        _passes.pop(self._task, None)
        self._run.end(current_pass() if in_backward() else None)


_passes: dict[int, Pass] = {}


def in_backward() -> bool:
    """Whether this thread is inside a backward pass."""
    return torch._C._current_graph_task_id() != _OUTSIDE


def current_pass() -> Pass:
    """The innermost backward pass that runs in this thread; there must be one."""
    task = torch._C._current_graph_task_id()
    run = _passes.get(task)
    if run is None:
        run = _passes[task] = Pass()
        _queue(_Lifeline(task, run))
        _queue(_Ending(run))
    return run


def current_node() -> Node:
    """The node that the engine executes in this thread; in a post-accumulate-grad hook, the parameter's own.

    `torch.autograd.graph.get_gradient_edge` costs more than all the rest of a hook, and it gives another node where
    the parameter's data was replaced between forward and backward.

    Raises:
        RuntimeError: There is none. Compiled autograd calls hooks outside of nodes, and drops what is queued for the
            end of the pass.
    """
    node: Node | None = torch._C._current_autograd_node()
    if node is None:
        msg = (
            "A gradient is there, but torch's autograd engine runs no node: under compiled autograd, optimizers cannot "
            "step inside backward. This parameter was not stepped. Turn off torch._dynamo.config.compiled_autograd "
            "(torch.compile works without it), or use an ordinary optimizer."
        )
        raise RuntimeError(msg)
    return node


def is_accumulating() -> bool:
    """Whether the engine runs a node that accumulates a gradient; FSDP2 calls post-accumulate-grad hooks outside."""
    node: Node | None = torch._C._current_autograd_node()
    return node is not None and node.name() == "torch::autograd::AccumulateGrad"


def is_last_hook(param: torch.Tensor, handle: RemovableHandle) -> bool:
    """Whether no other post-accumulate-grad hook of the parameter is called after this one."""
    return next(reversed(param._post_accumulate_grad_hooks), None) == handle.id


def shares_memory(tensor: torch.Tensor) -> bool:
    """Whether the running graph might still read this tensor's memory through another tensor.

    The engine drops what a node has saved as soon as the node has run, so for an ordinary model the answer is no once
    the gradient is complete. Where torch cannot tell, the answer is yes.
    """
    wrapper: Any = tensor
    if is_traceable_wrapper_subclass(wrapper):
        names, _ = wrapper.__tensor_flatten__()
        inner = (getattr(wrapper, name) for name in names)
        return any(shares_memory(part) for part in inner if isinstance(part, torch.Tensor))
    try:
        return _storage_users(tensor) != _SOLE_USER
    except (NotImplementedError, RuntimeError):
        return True


def _storage_users(tensor: torch.Tensor) -> int:
    users: int = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return users


def _queue(callback: Callable[[], None]) -> None:
    Variable._execution_engine.queue_callback(callback)


class _Ending:
    """What the engine calls at the end of a pass that went well.

    Apart from the lifeline: the traceback of an exception raised here may outlive the pass, the lifeline must not.
    """

    def __init__(self, run: Pass) -> None:
        self._run = run

    def __call__(self) -> None:
        if _is_nested():
            return
        if self._run.turns_to_wait:
            self._run.turns_to_wait -= 1
            _queue(self)
            return
        for call in tuple(self._run.at_end):
            call(self._run)
        self._run.end(None)  # a worker thread of the engine may hold on to the lifeline a little longer


def _is_nested() -> bool:
    """Whether the pass that ends now runs inside a node or a hook of another one, by this thread's Python stack."""
    frame: Any = sys._getframe()
    backwards = 0
    while frame is not None:
        if frame.f_code is BackwardCFunction.apply.__code__:
            return True
        backwards += frame.f_code is _engine_run_backward.__code__
        frame = frame.f_back
    return backwards > 1


_SOLE_USER = _storage_users(torch.empty(0))  # the tensor, and the storage object that the question itself makes
