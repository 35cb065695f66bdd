"""Backward inside backward: each gradient comes whole, or the refusal comes before the second step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import inbackward

Layer = Callable[[torch.Tensor], torch.Tensor]


def again(layer: Layer) -> Layer:
    def run(x: torch.Tensor) -> Any:
        return checkpoint(layer, x, use_reentrant=True)

    return run


def inner_then_outer(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    return again(layer)(layer(x))


def outer_then_inner(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    return layer(again(layer)(x))


def two_inner(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    return again(layer)(again(layer)(x))


def two_inner_of_an_inner(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    return again(lambda y: again(layer)(again(layer)(y)))(x)


def two_depths(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    return again(lambda y: again(again(layer))(y) * 2)(again(layer)(x))


def in_a_hook(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    def backward(_: torch.Tensor) -> None:
        with torch.enable_grad():
            layer(torch.ones(1, 3)).sum().backward()

    y = layer(x)
    y.register_hook(backward)
    return y


@pytest.mark.parametrize(
    "forward", [inner_then_outer, outer_then_inner, two_inner, two_inner_of_an_inner, two_depths, in_a_hook]
)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_a_gradient_that_comes_in_parts_is_refused(forward: Callable[[Layer, torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    inbackward.apply_optimizer_in_backward(torch.optim.Adam, layer.parameters(), {})
    steps: list[object] = []
    for optimizer in inbackward.get_in_backward_optimizers(layer):
        optimizer.register_step_post_hook(lambda optimizer, *_: steps.append(optimizer))

    with pytest.raises(RuntimeError, match="use_reentrant=False") as kept:
        forward(layer, torch.randn(2, 3, requires_grad=True)).sum().backward()
    assert "already stepped" in str(kept.value)
    assert len(steps) == len(set(steps))

    layer.zero_grad()
    steps.clear()
    layer(torch.randn(2, 3)).sum().backward()
    assert len(steps) == 2


def test_successive_passes_are_not_taken_for_parts_of_one() -> None:
    layer = nn.Linear(3, 3)
    inbackward.apply_optimizer_in_backward(torch.optim.Adam, layer.parameters(), {})
    for _ in range(3):
        again(layer)(torch.randn(2, 3, requires_grad=True)).sum().backward()
    assert inbackward.optimizers_of(layer.weight)[0].state[layer.weight]["step"] == 3


def test_a_nested_pass_that_fails_and_is_caught() -> None:
    """What it has completed is stepped; what it has left is stepped with what the outer pass adds, or refused."""
    layer = nn.Linear(3, 3)
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, layer.parameters(), {"lr": 1.0})

    class Careless(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(_: Any, *grads: torch.Tensor) -> torch.Tensor:
            with torch.enable_grad(), pytest.raises(ZeroDivisionError):
                layer(torch.ones(1, 3)).sum().backward()
            return grads[0]

    def boom(_: torch.Tensor) -> None:
        raise ZeroDivisionError

    handle = layer.weight.register_post_accumulate_grad_hook(boom)
    x = torch.ones(2, 3, requires_grad=True)
    before = layer.weight.detach().clone()
    output: Any = Careless.apply(x * 1)  # type: ignore[no-untyped-call]
    output.sum().backward()
    handle.remove()

    assert layer.weight.grad is None
    assert torch.equal(layer.weight, before - 1)
