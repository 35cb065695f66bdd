"""Conversions that swap the tensors under Parameter objects."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import inbackward
from impl_support import Net, attach, attached, batch, make, plain

TORCHS_OWN = getattr(torch.utils.swap_tensors, "__wrapped__", torch.utils.swap_tensors)


@pytest.fixture
def conversions_swap() -> Iterator[None]:
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


def train(model: Net, *, standard: bool) -> Net:
    """Trains in float32 and, converted, in float64, with two frozen parameters and one that nobody trains."""
    params = [*model.parameters()]
    params[1].requires_grad_(False)
    optimizer = torch.optim.SGD(params[:-1], lr=0.1, momentum=0.9)
    if not standard:
        inbackward.step_in_backward(optimizer)
    for dtype in (torch.float32, torch.float64, torch.float32):
        model.to(dtype)
        for step in range(2):
            model(batch(step).to(dtype)).pow(2).sum().backward()
            if standard:
                optimizer.step()
            optimizer.zero_grad()
        params[1].requires_grad_(True)
    return model


@pytest.mark.usefixtures("conversions_swap")
def test_a_model_that_is_converted_goes_on_training() -> None:
    ours, expected = train(make(), standard=False), train(make(), standard=True)
    torch.testing.assert_close(ours.state_dict(), expected.state_dict(), rtol=0, atol=0)


@pytest.mark.usefixtures("conversions_swap")
def test_hooks_of_the_user_are_lost_as_in_torch_and_can_be_registered_anew() -> None:
    model = attached()
    seen: list[str] = []
    model.last.bias.register_post_accumulate_grad_hook(lambda _: seen.append("old"))
    model.double()
    model.last.bias.register_post_accumulate_grad_hook(lambda _: seen.append("new"))
    model(batch().double()).sum().backward()
    assert seen == ["new"]
    assert model.last.bias.grad is None


def test_two_attached_parameters_change_places() -> None:
    """Each Parameter object keeps its optimizer, and trains the values that it has now."""
    layers = [nn.Linear(4, 4), nn.Linear(4, 4)]
    attach(nn.ModuleList(layers), torch.optim.SGD, lr=1.0)
    first, second = (layer.weight.detach().clone() for layer in layers)
    torch.utils.swap_tensors(layers[0].weight, layers[1].weight)
    (layers[0](torch.ones(1, 4)) + layers[1](torch.ones(1, 4))).sum().backward()
    torch.testing.assert_close(layers[0].weight.detach(), second - 1, rtol=0, atol=0)
    torch.testing.assert_close(layers[1].weight.detach(), first - 1, rtol=0, atol=0)


def test_a_swap_that_torch_refuses_changes_nothing() -> None:
    model = attached()
    somebodys = weakref.ref(model.last.weight)
    with pytest.raises(RuntimeError, match="weakref"):
        torch.utils.swap_tensors(model.last.weight, nn.Parameter(torch.zeros(4, 5)))
    before = model.last.weight.detach().clone()
    plain(model)
    assert somebodys() is model.last.weight
    assert not torch.equal(model.last.weight, before)


def test_who_took_the_function_from_torch_before_is_refused() -> None:
    """Else the hooks would be lost, and the parameter would silently train no more."""
    model = attached()
    with pytest.raises(RuntimeError, match="weakref"):
        TORCHS_OWN(model.last.weight, nn.Parameter(torch.zeros(4, 5)))


@pytest.mark.usefixtures("conversions_swap")
def test_a_converted_model_is_collected() -> None:
    model = attached()
    model.double()
    model(batch().double()).sum().backward()
    weights = [weakref.ref(param) for param in model.parameters()]
    del model
    gc.collect()
    assert [weight() for weight in weights] == [None] * len(weights)


@pytest.mark.usefixtures("conversions_swap")
def test_a_detached_model_is_an_ordinary_one_after_a_conversion() -> None:
    model = attached()
    model.double()
    inbackward.detach(model)
    model.float()
    plain(model)
    assert all(param.grad is not None for param in model.parameters())
