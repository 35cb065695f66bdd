"""Gradient release: after `release_gradients(optimizer)` a plain `loss.backward()` steps, and frees each gradient.

The post-accumulate-grad hook of a parameter may run before hooks of the user, which must see the gradient. So a
parameter is stepped when the hook of the next one runs, and the last at the end of backward.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import Variable
from torch.autograd.graph import _engine_run_backward
from torch.utils.weak import WeakTensorKeyDictionary

from own_classes.one_by_one import OneByOne, may_be_read, parameters_of, step_and_free, twice_in_one_backward

if TYPE_CHECKING:
    from torch import Tensor

_optimizers: Any = WeakTensorKeyDictionary()
"""Weak references to the optimizers of each parameter: whoever made an optimizer keeps it."""


def release_gradients(optimizer: OneByOne) -> None:
    """Have every backward step the optimizer's parameters, for as long as the caller keeps the optimizer."""
    for param in parameters_of([optimizer]):
        if param not in _optimizers:
            _optimizers[param] = []
            _register_hook(param)
        _optimizers[param].append(weakref.ref(optimizer))


class _Backward:
    """A backward of this thread, with those that reentrant checkpoints run inside it."""

    def __init__(self) -> None:
        self.pending: Tensor | None = None
        self.stepped: set[int] = set()
        self.reached: dict[OneByOne, None] = {}
        self._watched: set[int] = set()

    def watch(self) -> None:
        """Have the engine call us when the pass that runs now ends."""
        task = torch._C._current_graph_task_id()
        if task not in self._watched:
            self._watched.add(task)
            Variable._execution_engine.queue_callback(_Lifeline(self))
            Variable._execution_engine.queue_callback(functools.partial(_at_end, self))

    def step_pending(self) -> None:
        param, self.pending = self.pending, None
        if param is not None and param.grad is not None and not may_be_read(param):
            self.stepped.add(id(param))
            step_and_free(param, _optimizers_of(param))


_running = threading.local()


class _Lifeline:
    """Lives as long as the engine runs a pass, whether that ends well or by an error."""

    def __init__(self, run: _Backward) -> None:
        self._run = run

    def __call__(self) -> None:
        """Do nothing: the engine keeps callables only."""

    def __del__(self) -> None:
        if torch._C._current_graph_task_id() == _NO_PASS:
            _running.backward = None
        else:
            self._run.watch()


def _accumulated(param: Tensor) -> None:
    optimizers = _optimizers_of(param)
    if not optimizers:
        return
    run: _Backward = getattr(_running, "backward", None) or _Backward()
    _running.backward = run
    run.watch()
    if id(param) in run.stepped:
        raise twice_in_one_backward(param)
    run.reached.update(dict.fromkeys(optimizers))
    if run.pending is not param:
        run.step_pending()
    run.pending = param


def _at_end(run: _Backward) -> None:
    """Step what holds a gradient yet, where no other backward runs around this one."""
    if _passes() > 1:
        return
    for param in parameters_of(run.reached):
        if param.grad is not None:
            step_and_free(param, _optimizers_of(param))
    for optimizer in run.reached:
        optimizer.finish()


def _optimizers_of(param: Tensor) -> list[OneByOne]:
    return [optimizer for reference in _optimizers.get(param, ()) if (optimizer := reference())]


def _register_hook(param: Tensor) -> None:
    """Register the hook, on a frozen parameter as well: it may thaw."""
    if not (param.is_floating_point() or param.is_complex()):
        return
    frozen = not param.requires_grad
    param.requires_grad_(True)
    param.register_post_accumulate_grad_hook(_accumulated)
    param.requires_grad_(not frozen)


def _passes() -> int:
    """Return how many backwards run in this thread, one inside the other."""
    count, frame = 0, sys._getframe().f_back
    while frame is not None:
        count += frame.f_code is _engine_run_backward.__code__
        frame = frame.f_back
    return count


_NO_PASS = -1
