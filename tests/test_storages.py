"""What counts memory counts exactly."""

from __future__ import annotations

import gc

import torch
from torch import nn

from inbackward_conformance.training.storages import Allocations, GradientBytes, Storages, gc_new_objects_only


def test_gradients_of_the_standard_loop_add_up() -> None:
    """All of them are alive at the end of backward, none after zero_grad."""
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    gradients = GradientBytes(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    everything = sum(param.numel() * 4 for param in model.parameters())
    assert gradients.peak == everything
    assert gradients.storages.live_bytes() == everything
    model.zero_grad()
    assert gradients.storages.live_bytes() == 0


def test_gradient_that_somebody_keeps_is_alive() -> None:
    param = nn.Parameter(torch.ones(3))
    gradients = GradientBytes([param])
    (param * 2).sum().backward()
    kept = param.grad
    param.grad = None
    assert gradients.storages.live_bytes() == 12
    del kept
    assert gradients.storages.live_bytes() == 0


def test_views_are_counted_once() -> None:
    storages = Storages()
    tensor = torch.ones(8)
    storages.see([tensor, tensor[2:], None])
    assert (storages.live(), storages.live_bytes()) == (1, 32)


def test_allocations_inside_backward_are_seen() -> None:
    kept = []
    param = nn.Parameter(torch.ones(3))
    param.register_post_accumulate_grad_hook(lambda param: kept.append(param.detach().clone()))
    with Allocations() as allocations:
        (param * 2).sum().backward()
        param.grad = None
    assert allocations.storages.live_bytes() == 12  # the clone, and not the parameter, which was there before


def test_what_an_operator_changes_in_place_is_no_allocation() -> None:
    there = torch.ones(3)
    with Allocations() as allocations:
        there.mul_(2).view(3, 1).add_(torch.ones(1))
    assert allocations.peak == 4


def test_old_objects_are_neither_counted_nor_collected() -> None:
    class Kept:
        pass

    old = Kept()
    old.cycle = old  # type: ignore[attr-defined]
    with gc_new_objects_only():
        new = Kept()
        found = [kept for kept in gc.get_objects() if type(kept) is Kept]
    assert found == [new]
    assert any(kept is old for kept in gc.get_objects())
