"""When a parameter is stepped inside backward, what backward inside backward comes to, and what errors leave behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

import inbackward
from impl_support import ADAM, Net, Run, assert_trains_alike, attach, attached, batch, make, plain


def reentrant_three_deep(model: Net, step: int, _: int) -> None:
    def second(x: torch.Tensor) -> Any:
        return checkpoint(model.last, checkpoint(model.norm, x, use_reentrant=True), use_reentrant=True)

    def first(x: torch.Tensor) -> Any:
        return checkpoint(second, model.first(x), use_reentrant=True)

    checkpoint(first, batch(step).requires_grad_(), use_reentrant=True).pow(2).sum().backward()


def reentrant_with_data_outside(model: Net, step: int, _: int) -> None:
    """The nested backward completes a gradient while the outer one has yet to read that parameter's memory."""
    hidden = linear(model.first(batch(step)), model.spare.weight.data).tanh()
    checkpoint(model.spare, hidden, use_reentrant=True).pow(2).sum().backward()


def shared_and_checkpointed(model: Net, step: int, _: int) -> None:
    checkpoint(model, model(batch(step)), use_reentrant=False).pow(2).sum().backward()


def backward_in_a_hook(model: Net, step: int, _: int) -> None:
    hidden = model.first(batch(step))

    def train_the_last(_: torch.Tensor) -> None:
        with torch.enable_grad():
            model.last(torch.ones(1, 5)).sum().backward()

    hidden.register_hook(train_the_last)
    hidden.pow(2).sum().backward()


def only_the_first(model: Net, step: int, _: int) -> None:
    model.first(batch(step)).pow(2).sum().backward()


def nothing(_: Net) -> None:
    pass


def flatten(model: Net) -> None:
    """All parameters become views of one buffer."""
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()).detach(), model.parameters())


def freeze_with_gradients(model: Net) -> None:
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    model.last.requires_grad_(requires_grad=False)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")  # the innermost checkpoint's
@pytest.mark.parametrize(
    ("run", "prepare"),
    [
        (reentrant_three_deep, nothing),
        (reentrant_with_data_outside, nothing),
        (shared_and_checkpointed, nothing),
        (backward_in_a_hook, nothing),
        (plain, flatten),
        (only_the_first, freeze_with_gradients),
    ],
)
def test_what_no_requirement_shows_trains_as_the_standard_loop(run: Run, prepare: Callable[[Net], None]) -> None:
    ours, standard = make(), make()
    for model in (ours, standard):
        prepare(model)
    attach(ours)
    assert_trains_alike(ours, standard, torch.optim.Adam(standard.parameters(), **ADAM), run)


def test_threads_with_nested_backwards_train_models_at_once() -> None:
    """Three models in three threads are each trained as one is alone."""
    start = threading.Barrier(3)

    def train(model: Net) -> None:
        attach(model)
        for step in range(20):
            checkpoint(model, batch(step).requires_grad_(), use_reentrant=True).pow(2).sum().backward()

    def train_with_others(model: Net) -> None:
        start.wait()
        train(model)

    alone, *together = (make() for _ in range(4))
    train(alone)
    threads = [threading.Thread(target=train_with_others, args=(model,)) for model in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in together:
        torch.testing.assert_close(model.state_dict(), alone.state_dict(), rtol=0, atol=0)


def ones(*sizes: int) -> list[nn.Parameter]:
    """Returns attached parameters of ones; SGD with lr 1 subtracts the gradient from them."""
    params = [nn.Parameter(torch.ones(size)) for size in sizes]
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, params, {"lr": 1.0})
    return params


def boom(*_: object) -> None:
    raise ZeroDivisionError


def test_the_end_of_backward_leaves_parameters_of_another_thread_alone() -> None:
    """Two threads train parameters of one call; one of them stops between gradient and step."""
    first, second = ones(2, 2)
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


def test_one_gradient_is_there_at_a_time_however_deep_the_model_is() -> None:
    """No step is put off, those of normalisation layers neither."""
    model = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4, bias=False), nn.LayerNorm(4)) for _ in range(8)])
    attach(model, torch.optim.AdamW)
    live = []

    def count(_: torch.Tensor) -> None:
        live.append(sum(param.grad is not None for param in model.parameters()))

    for param in model.parameters():
        param.register_post_accumulate_grad_hook(count)
    plain(model)
    assert live == [1] * 24


def test_the_step_runs_with_grad_mode_on() -> None:
    """As after backward: a step that forgets no_grad fails inside backward too."""
    (param,) = ones(2)
    modes = []
    inbackward.optimizers_of(param)[0].register_step_pre_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    loss = (param * 3).sum()
    with torch.no_grad():
        loss.backward()
    assert modes == [True]


def test_the_gradient_is_taken_over_and_not_copied() -> None:
    model = attached()
    addresses: list[int] = []
    model.last.weight.register_hook(lambda grad: addresses.append(grad.data_ptr()))

    def accumulated(param: torch.Tensor) -> None:
        assert param.grad is not None
        addresses.append(param.grad.data_ptr())

    model.last.weight.register_post_accumulate_grad_hook(accumulated)
    plain(model)
    assert addresses[0] == addresses[1]


def test_data_replaced_between_forward_and_backward_is_stepped() -> None:
    """The node of the graph is no longer the parameter's."""
    (param,) = ones(2)
    loss = (param * torch.ones(2)).sum()
    node = get_gradient_edge(param).node
    param.data = torch.full((2,), 5.0)
    loss.backward()
    assert node is not None
    assert torch.equal(param, torch.full((2,), 4.0))


@pytest.mark.parametrize("put_off", [False, True])
def test_after_a_step_that_raises_its_gradient_is_still_there(put_off: bool) -> None:
    """Also after one at the end of backward; the next backward adds to it, even while the error is kept."""
    (param,) = ones(2)
    alias = param.detach() if put_off else None
    handle = inbackward.optimizers_of(param)[0].register_step_pre_hook(boom)
    with pytest.raises(ZeroDivisionError) as kept:
        (param * 3).sum().backward()
    assert torch.equal(param, torch.ones(2))
    handle.remove()

    (param * 3).sum().backward()

    assert torch.equal(param, torch.full((2,), -5.0))
    assert param.grad is None
    del kept, alias


def test_an_error_between_gradient_and_step_is_made_up_for_by_one_step() -> None:
    """The graph, and so what the first backward left in it, is used again."""
    (param,) = ones(2)
    handle = param.register_post_accumulate_grad_hook(boom)
    loss = (param * torch.ones(2)).sum()
    with pytest.raises(ZeroDivisionError):
        loss.backward(retain_graph=True)
    handle.remove()
    steps = []
    inbackward.optimizers_of(param)[0].register_step_post_hook(lambda *_: steps.append(param.detach().clone()))
    loss.backward()
    assert torch.equal(torch.stack(steps), torch.full((1, 2), -1.0))


@pytest.mark.parametrize("call", ["attach", "detach"])
def test_attach_and_detach_are_refused_inside_backward(call: str) -> None:
    first, last = ones(2, 2)

    def hook(_: torch.Tensor) -> None:
        if call == "attach":
            inbackward.apply_optimizer_in_backward(torch.optim.SGD, [first], {"lr": 1.0})
        else:
            inbackward.detach([first])

    last.register_hook(hook)
    with pytest.raises(RuntimeError, match=f"Cannot {call} optimizers while backward runs"):
        (first * last).sum().backward()


def test_compiled_autograd_is_refused_before_anything_changes() -> None:
    first, last = ones(2, 2)
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


Layer = Callable[[torch.Tensor], torch.Tensor]


def again(layer: Layer) -> Layer:
    def run(x: torch.Tensor) -> Any:
        return checkpoint(layer, x, use_reentrant=True)

    return run


def in_a_hook(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    def backward(_: torch.Tensor) -> None:
        with torch.enable_grad():
            layer(torch.ones(1, 3)).sum().backward()

    y = layer(x)
    y.register_hook(backward)
    return y


@pytest.mark.parametrize(
    "forward",
    [
        lambda layer, x: again(layer)(layer(x)),
        lambda layer, x: layer(again(layer)(x)),
        lambda layer, x: again(layer)(again(layer)(x)),
        lambda layer, x: again(lambda y: again(layer)(again(layer)(y)))(x),
        lambda layer, x: again(lambda y: again(again(layer))(y) * 2)(again(layer)(x)),
        in_a_hook,
    ],
    ids=["inner then outer", "outer then inner", "two inner", "two inner of an inner", "two depths", "in a hook"],
)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_a_gradient_that_comes_in_parts_is_refused_before_a_second_step(
    forward: Callable[[Layer, torch.Tensor], torch.Tensor],
) -> None:
    layer = nn.Linear(3, 3)
    attach(layer)
    steps: list[object] = []
    for optimizer in inbackward.get_in_backward_optimizers(layer):
        optimizer.register_step_post_hook(lambda optimizer, *_: steps.append(optimizer))

    with pytest.raises(RuntimeError, match=r"already stepped.*use_reentrant=False"):
        forward(layer, torch.randn(2, 3, requires_grad=True)).sum().backward()
    assert len(steps) == len(set(steps))

    layer.zero_grad()
    steps.clear()
    layer(torch.randn(2, 3)).sum().backward()
    assert len(steps) == 2


def test_a_nested_backward_that_raises_and_is_caught() -> None:
    """What it has completed is stepped, and once."""
    layer = nn.Linear(3, 3)
    attach(layer, torch.optim.SGD, lr=1.0)

    class Careless(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(_: Any, *grads: torch.Tensor) -> torch.Tensor:
            with torch.enable_grad(), pytest.raises(ZeroDivisionError):
                layer(torch.ones(1, 3)).sum().backward()
            return grads[0]

    handle = layer.weight.register_post_accumulate_grad_hook(boom)
    before = layer.weight.detach().clone()
    output: Any = Careless.apply(torch.ones(2, 3, requires_grad=True) * 1)  # type: ignore[no-untyped-call]
    output.sum().backward()
    handle.remove()

    assert layer.weight.grad is None
    assert torch.equal(layer.weight, before - 1)
