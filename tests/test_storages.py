"""What counts memory counts exactly."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from inbackward_conformance.requirements.test_memory import compilable_layers
from inbackward_conformance.storages import GradientBytes, Storages, gc_new_objects_only


def test_gradients_of_the_standard_loop_add_up() -> None:
    """All of them are alive at the end of backward, none after zero_grad."""
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    with GradientBytes(model.parameters()) as gradients:
        model(torch.ones(2, 4)).sum().backward()
    everything = sum(param.numel() * 4 for param in model.parameters())
    assert gradients.peak == everything
    assert gradients.live_bytes == everything
    model.zero_grad()
    assert gradients.live_bytes == 0


@pytest.mark.parametrize("compiled", ["whole", "layer by layer"])
def test_gradients_of_compiled_code_count_from_their_allocation(compiled: str) -> None:
    """A whole compiled model allocates all of them before a hook sees the first; layer by layer, each at its turn."""
    torch._dynamo.reset()
    model = compilable_layers(4, 8, "cpu")
    for module in [model] if compiled == "whole" else model.children():
        module.compile(backend="aot_eager")
    for param in model.parameters():
        param.register_post_accumulate_grad_hook(lambda param: setattr(param, "grad", None))
    model(torch.ones(2, 8)).sum().backward()
    loss = model(torch.ones(2, 8)).sum()
    with GradientBytes(model.parameters()) as gradients:
        loss.backward()
    torch._dynamo.reset()
    assert gradients.peak == 8 * 8 * 4 * (4 if compiled == "whole" else 1)
    assert not gradients.live_bytes


def test_views_are_counted_once() -> None:
    storages = Storages()
    tensor = torch.ones(8)
    storages.see([tensor, tensor[2:], None])
    assert (storages.live(), storages.live_bytes()) == (1, 32)


def test_old_objects_are_neither_counted_nor_collected() -> None:
    class Kept:
        pass

    old = Kept()
    old.cycle = old  # type: ignore[attr-defined]
    with gc_new_objects_only():
        new = Kept()
        assert [kept for kept in gc.get_objects() if type(kept) is Kept] == [new]
    assert any(kept is old for kept in gc.get_objects())


def test_a_sparse_gradient_has_two_storages() -> None:
    embedding = nn.Embedding(8, 4, sparse=True)
    gradients = GradientBytes(embedding.parameters())
    embedding(torch.tensor([1, 1, 2])).square().sum().backward()
    indices, values = 3 * 8, 3 * 4 * 4
    assert gradients.peak == indices + values
