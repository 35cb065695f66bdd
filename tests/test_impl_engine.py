"""What `inbackward._engine` relies on and torch does not promise: behaviour of the autograd engine and its privates."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import Variable
from torch.autograd.graph import get_gradient_edge
from torch.testing._internal.two_tensor import TwoTensor

import inbackward

Hook = Callable[[torch.Tensor], None]

OUTSIDE = -1


def task() -> int:
    """Returns the number of the backward that runs in this thread."""
    return torch._C._current_graph_task_id()


def queue(callback: Callable[[], None]) -> None:
    Variable._execution_engine.queue_callback(callback)


def backward_with(hook: Hook) -> None:
    """Runs a backward that calls the hook."""
    x = torch.ones(2, requires_grad=True)
    x.register_hook(hook)
    x.sum().backward()


def nest(inner: Hook, after: Callable[[], object]) -> None:
    """Runs a backward inside another one, and calls `after` while the outer one goes on."""

    def outer(_: torch.Tensor) -> None:
        with torch.enable_grad():
            backward_with(inner)
        after()

    backward_with(outer)


def is_stepped_at_once(param: torch.Tensor) -> bool:
    """Says whether backward steps the parameter before it goes on with another part of the graph."""
    stepped: list[object] = []
    seen: list[bool] = []
    optimizer = inbackward.optimizers_of(param)[0]
    handle = optimizer.register_step_post_hook(lambda *_: stepped.append(_))
    first = torch.ones((), requires_grad=True) * 1  # the oldest node, which the engine runs last
    first.register_hook(lambda _: seen.append(bool(stepped)))
    last = (param * 2).to_dense().abs().sum()
    torch.autograd.backward([first, last], [torch.ones_like(first), torch.ones_like(last)])
    handle.remove()
    assert len(stepped) == 1
    return seen == [True]


@pytest.mark.parametrize(
    "param",
    [
        torch.ones(2),
        torch.ones(0),
        torch.ones(()),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last),
        torch.ones(2).double(),
        nn.Parameter(torch.ones(2)),
        nn.LSTM(2, 2).weight_ih_l0,
        TwoTensor(torch.ones(2), torch.ones(2)),
    ],
    ids=lambda param: f"{type(param).__name__}-{param.dtype}-{tuple(param.shape)}",
)
def test_a_parameter_waits_for_the_end_of_backward_while_an_alias_lives(param: torch.Tensor) -> None:
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, [param.requires_grad_()], {"lr": 1.0})
    assert is_stepped_at_once(param)
    alias = param.detach()
    assert not is_stepped_at_once(param)
    del alias
    assert is_stepped_at_once(param)
    inbackward.detach(param)


def test_a_parameter_waits_where_torch_cannot_tell_of_aliases() -> None:
    param = torch.eye(2).to_sparse().requires_grad_()
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, [param], {"lr": 1.0})
    assert not is_stepped_at_once(param)


def test_a_backward_has_one_number_and_the_next_has_another() -> None:
    seen: list[int] = []
    x = torch.ones(2, requires_grad=True)
    for tensor in (x, x * 2):
        tensor.register_hook(lambda _: seen.append(task()))
    for _ in range(2):
        tensor.sum().backward(retain_graph=True)
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert OUTSIDE not in seen
    assert task() == OUTSIDE


def queue_watched(events: list[tuple[str, int]]) -> None:
    """Queues a callback, and takes down in which backward it is called, and in which it is dropped."""

    def callback() -> None:
        events.append(("called", task()))

    weakref.finalize(callback, lambda: events.append(("dropped", task())))
    queue(callback)


def test_a_queued_callback_is_called_at_the_end_of_its_backward_and_dropped_in_the_outer_one() -> None:
    events: list[tuple[str, int]] = []

    def inner(_: torch.Tensor) -> None:
        events.append(("queued", task()))
        queue_watched(events)

    nest(inner, lambda: events.append(("outer", task())))
    nested, outer = events[0][1], events[-1][1]
    assert events == [("queued", nested), ("called", nested), ("dropped", outer), ("outer", outer)]
    assert nested != outer


def test_a_queued_callback_is_dropped_uncalled_when_its_backward_raises() -> None:
    events: list[tuple[str, int]] = []

    def boom(_: torch.Tensor) -> None:
        queue_watched(events)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as kept:
        backward_with(boom)
    assert events == [("dropped", OUTSIDE)]
    del kept


def test_what_a_callback_queues_is_called_after_all_that_was_queued_before() -> None:
    calls: list[int] = []

    def first() -> None:
        calls.append(1)
        queue(lambda: calls.append(3))

    def hook(_: torch.Tensor) -> None:
        queue(first)
        queue(lambda: calls.append(2))

    backward_with(hook)
    assert calls == [1, 2, 3]


def has_node() -> bool:
    """Says whether the engine executes a node in this thread."""
    return torch._C._current_autograd_node() is not None


def test_only_a_nested_backward_ends_while_the_engine_executes_a_node() -> None:
    ends: list[bool] = []

    def note_end() -> None:
        ends.append(has_node())

    nest(lambda _: queue(note_end), lambda: queue(note_end))
    assert ends == [True, False]


def test_a_backward_of_a_custom_function_ends_while_the_engine_executes_its_node() -> None:
    ends: list[bool] = []

    class Identity(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(_: Any, *grads: torch.Tensor) -> torch.Tensor:
            with torch.enable_grad():
                backward_with(lambda _: queue(lambda: ends.append(has_node())))
            return grads[0]

    output: Any = Identity.apply(torch.ones(2, requires_grad=True))  # type: ignore[no-untyped-call]
    output.sum().backward()
    assert ends == [True]


def test_hooks_of_a_node_run_after_the_post_accumulate_grad_hooks_of_its_parameter() -> None:
    calls: list[str] = []
    param = nn.Parameter(torch.ones(2))

    def register(_: torch.Tensor) -> None:
        node = torch._C._current_autograd_node()
        assert node is get_gradient_edge(param).node
        assert node.name() == "torch::autograd::AccumulateGrad"
        node.register_hook(lambda *_: calls.append("node"))

    param.register_post_accumulate_grad_hook(register)
    last = param.register_post_accumulate_grad_hook(lambda _: calls.append("parameter"))
    param.sum().backward()
    assert calls == ["parameter", "node"]
    hooks: Any = param._post_accumulate_grad_hooks
    assert list(hooks)[-1] == last.id
