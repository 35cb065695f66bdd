"""What is asked of the autograd engine beyond what torch documents; no other module uses its privates.

Asked for are: which backward pass and which of its nodes are running, when the pass has ended, whether further hooks
are to see a gradient, and whether anything but a parameter itself still uses the parameter's memory.
`tests/test_impl_engine.py` pins the behaviour relied on.
"""

# ruff: noqa: SLF001 -- this is the one module that may read hooks of a parameter
from __future__ import annotations

import itertools
import sys
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import distributed

from inbackward import _private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from torch.autograd.graph import Node
    from torch.utils.hooks import RemovableHandle

_Function = TypeVar("_Function", bound="Callable[..., Any]")


def run_eagerly(function: _Function) -> _Function:
    """Decorates what torch.compile must not trace, nor anything that it calls.

    The mark is on the function's code, so a call costs nothing. `torch.compiler.disable` costs 1 µs a call, as much as
    all else that is done for a gradient.
    """
    frames = _private.dynamo_frames
    if not hasattr(frames, "set_code_exec_strategy"):
        return _private.disable_dynamo(function)  # type: ignore[no-any-return]
    skip = frames._FrameAction.SKIP
    frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
    return function


current_task = _private.current_task
keeps_graph = _private.keeps_graph

_OUTSIDE = -1  # the engine's word for "no backward is running in this thread"


class Waiting(Protocol):
    """Gradients that wait in a pass for one call that steps their parameters."""

    def move_to(self, run: Pass, waiting: Waiting | None) -> Waiting:
        """Goes on in the pass that this one was nested in, together with what waits there."""

    def drop(self) -> None:
        """Forgets what waits: backward has raised, or is over."""


class Pass:
    """One run of backward: the outermost one, with every nested (reentrant) one that has ended inside it.

    Attributes:
        at_end: What to call, with the outermost pass, before its `backward()` returns; a dict for its order and
            uniqueness. It is not called where backward raises.
        turns_to_wait: How often `at_end` lets go first whatever others have queued for the end of the pass meanwhile.
        before_others: What to call before it lets go any of them.
        waiting: The gradients that wait, by what steps them.
        joined: What steps parameters that the pass has reached, a dict for its order.
        callers_known: For which it is known that who runs this pass lets them step inside it.
        over: Whether the pass has ended, and ran in no other.
        is_distributed: Whether there is a process group.
    """

    __slots__ = (
        "_outer",
        "at_end",
        "before_others",
        "callers_known",
        "is_distributed",
        "joined",
        "over",
        "turns_to_wait",
        "waiting",
    )

    def __init__(self) -> None:
        self.at_end: dict[Callable[[Pass], None], None] = {}
        self.turns_to_wait = 0
        self.before_others: dict[Callable[[Pass], None], None] = {}
        self.waiting: dict[object, Waiting] = {}
        self.joined: dict[Any, None] = {}
        self.callers_known: set[object] = set()
        self.over = False
        self.is_distributed = distributed.is_available() and distributed.is_initialized()
        self._outer: Pass | None = None

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
        return not self.outermost.over

    def end(self, outer: Pass | None) -> None:
        """Ends the pass: what it was to call, and what waits, is left to the pass that it was nested in, if any."""
        if outer is None:
            self.over = True
            for waiting in self.waiting.values():
                waiting.drop()
        else:
            outer.at_end.update(self.at_end)
            outer.before_others.update(self.before_others)
            outer.joined.update(self.joined)
            outer.turns_to_wait = max(outer.turns_to_wait, self.turns_to_wait)
            for key, waiting in self.waiting.items():
                outer.waiting[key] = waiting.move_to(outer, outer.waiting.get(key))
        self._outer = outer
        self.at_end = {}
        self.before_others = {}
        self.joined = {}
        self.callers_known = set()
        self.waiting = {}


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
    return current_task() != _OUTSIDE


def refuse_in_backward(what: str) -> None:
    """Refuses to do something while backward runs.

    Raises:
        RuntimeError: This thread is inside a backward pass.
    """
    if in_backward():
        msg = f"Cannot {what} while backward runs: some parameters have been reached by it, others not. Do it before."
        raise RuntimeError(msg)


class outside_backward:  # noqa: N801 -- used as a function
    """Enables gradients in a `with` block, as they are after backward; optimizers of torch disable them themselves.

    It does what `torch.enable_grad` does, in a fifth of the time. It leaves inference mode too: state that was made in
    it could not be changed outside.
    """

    __slots__ = ("_before", "_no_inference")

    def __enter__(self) -> None:
        self._no_inference: Any = None
        if torch.is_inference_mode_enabled():
            self._no_inference = torch.inference_mode(mode=False)
            self._no_inference.__enter__()
        self._before = _private.is_grad_enabled()
        _private.set_grad_enabled(True)

    def __exit__(self, *_: object) -> None:
        _private.set_grad_enabled(self._before)
        if self._no_inference is not None:
            self._no_inference.__exit__(None, None, None)


def current_pass() -> Pass:
    """The innermost backward pass that runs in this thread; there must be one."""
    task = current_task()
    run = _passes.get(task)
    if run is None:
        run = _passes[task] = Pass()
        _private.queue_callback(_Lifeline(task, run))
        _private.queue_callback(_Ending(run))
    return run


def current_node() -> Node:
    """The node that the engine executes in this thread; in a post-accumulate-grad hook, the parameter's own.

    `torch.autograd.graph.get_gradient_edge` costs more than all the rest of a hook, and it gives another node where
    the parameter's data was replaced between forward and backward.

    Raises:
        RuntimeError: There is none. Compiled autograd calls hooks outside of nodes, and drops what is queued for the
            end of the pass.
    """
    node: Node | None = _private.current_node()
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
    node: Node | None = _private.current_node()
    return node is not None and node.name() == "torch::autograd::AccumulateGrad"


def is_last_hook(param: torch.Tensor, handle: RemovableHandle | None) -> bool:
    """Whether no other post-accumulate-grad hook of the parameter is called after this one; None: removed meanwhile."""
    if handle is None:
        return True
    hooks: Any = param._post_accumulate_grad_hooks
    return len(hooks) == 1 or next(reversed(hooks)) == handle.id


def call_hooks_again(param: Any) -> None:
    """Has torch call the hooks of a parameter whose tensor was swapped.

    The parameter keeps its dicts of hooks then, but torch calls nothing that is in them, or is added to them.
    """
    param._backward_hooks = param._backward_hooks
    param._post_accumulate_grad_hooks = param._post_accumulate_grad_hooks


def forget_hooks(param: Any) -> None:
    """Removes all hooks of a parameter, also those that torch calls no more since its tensor was swapped."""
    param._backward_hooks = None
    param._post_accumulate_grad_hooks = None


def may_have_hooks(node: Node) -> bool:
    """Whether somebody may have registered hooks on the node itself, which run after those of the tensor.

    A node doesn't tell. But one that accumulates dies with its graph, so whoever wants a hook on it to stay keeps the
    node, and this is not its only reference. Registering a hook here, to be called last, would cost 5 µs a parameter.
    """
    return sys.getrefcount(node) > references_to_new_node()


@cache
def references_to_new_node() -> int:
    """How many references `may_have_hooks` counts to a node that nobody else has; call it outside of backward first."""
    counts: list[int] = []

    def count(node: Node) -> None:
        counts.append(sys.getrefcount(node))

    with torch.inference_mode(mode=False), torch.enable_grad():
        tensor = torch.ones((), device="cpu", requires_grad=True)
        tensor.register_post_accumulate_grad_hook(lambda _: count(current_node()))
        (tensor * 1).backward()
    return counts[0]


def shares_memory(tensor: torch.Tensor) -> bool:
    """Whether the running graph might still read this tensor's memory through another tensor.

    The engine drops what a node has saved as soon as the node has run, so for an ordinary model the answer is no once
    the gradient is complete. Where torch cannot tell, the answer is yes.
    """
    wrapper: Any = tensor
    if type(tensor) not in _PLAIN and _private.is_wrapper(wrapper):
        names, _ = wrapper.__tensor_flatten__()
        inner = (getattr(wrapper, name) for name in names)
        return any(shares_memory(part) for part in inner if isinstance(part, torch.Tensor))
    try:
        return _storage_users(tensor) != _SOLE_USER
    except (NotImplementedError, RuntimeError):
        return True


_PLAIN = {torch.Tensor, torch.nn.Parameter}


def _storage_users(tensor: torch.Tensor) -> int:
    return _private.storage_use_count(tensor.untyped_storage()._cdata)


class _Ending:
    """What the engine calls at the end of a pass that went well.

    Apart from the lifeline: the traceback of an exception raised here may outlive the pass, the lifeline must not.
    """

    def __init__(self, run: Pass) -> None:
        self._run = run

    def __call__(self) -> None:
        if _private.current_node() is not None:
            return  # the pass runs inside a node or a hook of another one, which the engine has current again
        before_others, self._run.before_others = self._run.before_others, {}
        for call in before_others:
            call(self._run)
        if self._run.turns_to_wait:
            self._run.turns_to_wait -= 1
            _private.queue_callback(self)
            return
        for call in tuple(self._run.at_end):
            call(self._run)
        self._run.end(None)  # a worker thread of the engine may hold on to the lifeline a little longer


def mark(node: Any, mark: str) -> bool:
    """Marks a node of a graph; returns False if it has the mark already."""
    return not (mark in node.metadata or node.metadata.update({mark: True}))


def is_marked(node: Any, mark: str) -> bool:
    """Whether a node has the mark."""
    return mark in node.metadata


def losses() -> list[torch.Tensor]:
    """The tensors on which the running `torch.autograd.backward` was called, the outer ones of a nested pass too."""
    code = torch.autograd.backward.__code__
    found = (frame.f_locals["tensors"] for frame in _frames() if frame.f_code is code)
    return [each for given in found for each in ([given] if isinstance(given, torch.Tensor) else given)]


def nodes_of(losses: Iterable[torch.Tensor]) -> Iterator[Any]:
    """The nodes of the graph of some losses, those near the losses first."""
    following = deque(loss.grad_fn for loss in losses)
    seen: set[Node] = set()
    while following:
        node = following.popleft()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            following.extend(each for each, _ in node.next_functions)


def is_called_by(package: str) -> bool:
    """Whether a module of the package has called the running backward."""
    return any(frame.f_globals.get("__name__", "").startswith(package) for frame in _frames())


def _frames() -> Iterator[FrameType]:
    """Python's stack around the running backward.

    Where another thread than the caller's runs nodes, as the engine's of an accelerator do, these are the stacks of
    all threads: whoever waits for it is among them. Nothing here refers to its own frame, which would keep a whole
    graph until the garbage collector comes by.
    """
    code = _private.run_backward
    if any(frame.f_code is code for frame in _stack(sys._getframe())):
        return _stack(sys._getframe())
    return itertools.chain.from_iterable(map(_stack, sys._current_frames().values()))


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


_SOLE_USER = _storage_users(torch.empty(0))  # the tensor, and the storage object that the question itself makes
