"""When a parameter is stepped, who sees its gradient before, and what an exception leaves behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

import inbackward


def attached(*sizes: int, **options: Any) -> list[nn.Parameter]:
    """Gives parameters of ones with SGD in backward, which subtracts the gradient as it is."""
    params = [nn.Parameter(torch.ones(size)) for size in sizes]
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, params, {"lr": 1.0, **options})
    return params


def boom(_: torch.Tensor) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("before", [True, False])
def test_what_a_hook_makes_of_the_gradient_is_stepped(before: bool) -> None:
    """Clipping in a post-accumulate-grad hook works whether it was registered before or after attachment."""
    seen = []

    def clip(param: torch.Tensor) -> None:
        assert param.grad is not None
        seen.append(param.grad.clone())
        param.grad.clamp_(max=0.5)

    param = nn.Parameter(torch.ones(2))
    if before:
        param.register_post_accumulate_grad_hook(clip)
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, [param], {"lr": 1.0})
    if not before:
        param.register_post_accumulate_grad_hook(clip)

    (param * 3).sum().backward()

    assert torch.equal(torch.stack(seen), torch.full((1, 2), 3.0))
    assert torch.equal(param, torch.full((2,), 0.5))


def test_a_hook_may_throw_the_gradient_away() -> None:
    (param,) = attached(2)

    def drop(param: torch.Tensor) -> None:
        param.grad = None

    param.register_post_accumulate_grad_hook(drop)
    (param * 3).sum().backward()
    assert torch.equal(param, torch.ones(2))


def test_a_parameter_is_stepped_while_backward_runs() -> None:
    first, last = attached(2, 2)
    at_first = []
    first.register_hook(lambda _: at_first.append(last.detach().clone()))
    (first * 2 * last).sum().backward()
    assert torch.equal(at_first[0], torch.full((2,), -1.0))


def test_live_gradients_do_not_grow_with_depth() -> None:
    """No step of an ordinary model is put off: at any time one gradient is there."""

    def peak(depth: int) -> int:
        model = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4, bias=False), nn.LayerNorm(4)) for _ in range(depth)])
        inbackward.apply_optimizer_in_backward(torch.optim.AdamW, model.parameters(), {})
        live = []

        def count(_: torch.Tensor) -> None:
            live.append(sum(param.grad.nbytes for param in model.parameters() if param.grad is not None))

        for param in model.parameters():
            param.register_post_accumulate_grad_hook(count)
        model(torch.randn(2, 4)).sum().backward()
        return max(live)

    assert peak(8) == peak(32) == 4 * 4 * 4


def test_the_step_sees_grad_mode_on_and_leaves_it() -> None:
    """As after backward: a step that forgets no_grad must fail inside backward too."""
    (param,) = attached(2)
    modes = []
    inbackward.optimizers_of(param)[0].register_step_pre_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    state = torch.get_rng_state()
    with torch.no_grad():
        with torch.enable_grad():
            loss = (param * 3).sum()
        loss.backward()
        assert not torch.is_grad_enabled()
    assert modes == [True]
    assert torch.equal(torch.get_rng_state(), state)


def test_optimizers_of_one_parameter_step_in_order_once_a_backward() -> None:
    param = nn.Parameter(torch.ones(2))
    steps = []
    for index, register_hook in enumerate([False, True, False]):
        inbackward.apply_optimizer_in_backward(torch.optim.SGD, [param], {"lr": 1.0}, register_hook=register_hook)
        optimizer = inbackward.optimizers_of(param)[-1]
        optimizer.register_step_post_hook(lambda *_, index=index: steps.append(index))
    (param * 1).sum().backward()
    assert steps == [0, 1, 2]
    assert torch.equal(param, torch.full((2,), -2.0))


def test_unhooked_parameters_are_left_alone() -> None:
    param = nn.Parameter(torch.ones(2))
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, [param], {"lr": 1.0}, register_hook=False)
    (param * 3).sum().backward()
    assert torch.equal(param, torch.ones(2))
    assert param.grad is not None


@pytest.mark.parametrize("put_off", [False, True])
def test_an_exception_in_a_step_reaches_the_caller(put_off: bool) -> None:
    """Also from a step at the end of backward; the next backward is not disturbed, even while the error is kept."""
    (param,) = attached(2)
    alias = param.detach() if put_off else None
    handle = inbackward.optimizers_of(param)[0].register_step_pre_hook(lambda *_: boom(param))
    with pytest.raises(ZeroDivisionError) as kept:
        (param * 3).sum().backward()
    assert torch.equal(param, torch.ones(2))
    handle.remove()

    (param * 3).sum().backward()

    assert torch.equal(param, torch.full((2,), -5.0))  # both gradients, as the standard loop has it
    assert param.grad is None
    del kept, alias


def test_an_exception_between_gradient_and_step_is_made_up_for_once() -> None:
    """The graph, and so what the first backward left in it, is used again."""
    (param,) = attached(2)
    handle = param.register_post_accumulate_grad_hook(boom)
    loss = (param * torch.ones(2)).sum()
    with pytest.raises(ZeroDivisionError):
        loss.backward(retain_graph=True)
    handle.remove()
    steps = []
    inbackward.optimizers_of(param)[0].register_step_post_hook(lambda *_: steps.append(param.detach().clone()))
    loss.backward()
    assert torch.equal(torch.stack(steps), torch.full((1, 2), -1.0))


def test_nothing_stays_on_the_node() -> None:
    """Each backward over one retained graph is one step."""
    (param,) = attached(2)
    loss = (param * torch.ones(2)).sum()
    for step in range(1, 4):
        loss.backward(retain_graph=True)
        assert torch.equal(param, torch.full((2,), 1.0 - step))


def test_data_replaced_between_forward_and_backward() -> None:
    """The node of the graph is no longer the parameter's; what the standard loop makes of it, so do we."""
    (param,) = attached(2)
    loss = (param * torch.ones(2)).sum()
    node = get_gradient_edge(param).node
    param.data = torch.full((2,), 5.0)
    loss.backward()
    assert node is not None
    assert torch.equal(param, torch.full((2,), 4.0))


def test_the_end_of_backward_leaves_other_threads_alone() -> None:
    """Two threads train parameters of one call; one of them stops between gradient and step."""
    first, second = attached(2, 2)
    stopped, go_on = threading.Event(), threading.Event()

    def wait(_: torch.Tensor) -> None:
        stopped.set()
        go_on.wait(10)

    first.register_post_accumulate_grad_hook(wait)
    thread = threading.Thread(target=lambda: (first * 3).sum().backward())
    thread.start()
    stopped.wait(10)
    (second * 3).sum().backward()
    still = first.detach().clone()
    go_on.set()
    thread.join()
    assert torch.equal(still, torch.ones(2))
    assert torch.equal(first, torch.full((2,), -2.0))
    assert torch.equal(second, torch.full((2,), -2.0))


@pytest.mark.parametrize("call", ["attach", "detach"])
def test_no_attaching_while_backward_runs(call: str) -> None:
    first, last = attached(2, 2)

    def hook(_: torch.Tensor) -> None:
        if call == "attach":
            inbackward.apply_optimizer_in_backward(torch.optim.SGD, [first], {"lr": 1.0})
        else:
            inbackward.detach([first])

    last.register_hook(hook)
    with pytest.raises(RuntimeError, match=f"Cannot {call} optimizers while backward runs"):
        (first * last).sum().backward()


def test_compiled_autograd_is_refused_before_anything_changes() -> None:
    first, last = attached(2, 2)
    loss = (first * last).sum()
    torch._dynamo.reset()
    with (
        torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")),
        pytest.raises(RuntimeError, match="use an ordinary optimizer"),
    ):
        loss.backward()
    torch._dynamo.reset()
    assert torch.equal(first, torch.ones(2))
    assert torch.equal(last, torch.ones(2))
