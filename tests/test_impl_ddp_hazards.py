"""Under `wrap_ddp`: uneven inputs, sparse gradients, hooks, lifetime, and that communication overlaps."""

from __future__ import annotations

import copy
import gc
import threading
import time
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import inbackward
from impl_ddp_runs import assert_equal, attached, batch, equals_plain_ddp, make, plain
from impl_ranks import Ranks, shared

MANY_BUCKETS: dict[str, Any] = {"bucket_cap_mb": 0.0001}


@pytest.fixture
def ranks() -> Ranks:
    return shared()


def uneven(group: Any, *, by_all: bool, unused: bool, in_place: bool) -> None:
    options = {
        "process_group": group,
        "find_unused_parameters": unused,
        "gradient_as_bucket_view": in_place,
        **MANY_BUCKETS,
    }
    rank = group.rank()
    ours, standard = attached(), make()
    optimizer = torch.optim.Adam(standard.parameters(), lr=0.01, weight_decay=0.1)

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad()

    wrapped = inbackward.wrap_ddp(ours, **options)
    for ddp, then in ((DistributedDataParallel(standard, **options), step), (wrapped, lambda: None)):
        with ddp.join(divide_by_initial_world_size=by_all):
            for index in range(2 + rank):
                used = not unused or index % 2 == 0
                ddp(batch(index, rank), spare=used).pow(2).sum().backward()
                then()
    assert_equal(ours, standard, group)


@pytest.mark.parametrize("by_all", [True, False])
@pytest.mark.parametrize("unused", [True, False])
@pytest.mark.parametrize("in_place", [True, False])
def test_uneven_inputs(ranks: Ranks, by_all: bool, unused: bool, in_place: bool) -> None:
    ranks.run(uneven, 3, by_all=by_all, unused=unused, in_place=in_place)


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(6, 4, sparse=True), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(self.table(x))


def sparse(group: Any, *, in_place: bool) -> None:
    torch.manual_seed(0)
    ours = Sparse()
    standard = copy.deepcopy(ours)
    options = {"process_group": group, "gradient_as_bucket_view": in_place}
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, ours.parameters(), {"lr": 0.1})
    optimizer = torch.optim.SGD(standard.parameters(), lr=0.1)
    wrapped, ddp = inbackward.wrap_ddp(ours, **options), DistributedDataParallel(standard, **options)
    for step in range(3):
        x = torch.tensor([group.rank(), step, 5])
        for each in (wrapped, ddp):
            each(x).pow(2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_equal(ours, standard, group)


@pytest.mark.parametrize("in_place", [True, False])
def test_sparse_gradients(ranks: Ranks, in_place: bool) -> None:
    ranks.run(sparse, 3, in_place=in_place)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64))
        self.last = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.last((x.to(torch.complex64) @ self.weight.T).abs())


def complex_numbers(group: Any, *, in_place: bool) -> None:
    torch.manual_seed(0)
    ours = Complex()
    standard = copy.deepcopy(ours)
    options = {"process_group": group, "gradient_as_bucket_view": in_place, **MANY_BUCKETS}
    inbackward.apply_optimizer_in_backward(torch.optim.Adam, ours.parameters(), {"lr": 0.1})
    optimizer = torch.optim.Adam(standard.parameters(), lr=0.1)
    wrapped, ddp = inbackward.wrap_ddp(ours, **options), DistributedDataParallel(standard, **options)
    for step in range(3):
        for each in (wrapped, ddp):
            plain(each, step, group.rank())
        optimizer.step()
        optimizer.zero_grad()
    assert_equal(ours, standard, group)


@pytest.mark.parametrize("in_place", [True, False])
def test_complex_parameters(ranks: Ranks, in_place: bool) -> None:
    ranks.run(complex_numbers, 3, in_place=in_place)


def overlaps(group: Any) -> None:
    """The backward of the first layer waits, on all ranks, for the step of the last."""
    model = attached()
    ddp = inbackward.wrap_ddp(model, process_group=group, **MANY_BUCKETS)
    plain(ddp, 0, group.rank())  # DDP rebuilds its buckets in the order of gradients after this
    stepped = threading.Event()
    inbackward.optimizers_of(model.last.weight)[0].register_step_post_hook(lambda *_: stepped.set())
    in_time = []

    def wait(_: torch.Tensor) -> None:
        in_time.append(stepped.wait(5))

    hidden = model.first.register_forward_hook(lambda *args: args[2].register_hook(wait) and None)
    plain(ddp, 1, group.rank())
    hidden.remove()
    assert in_time == [True]


def test_an_early_bucket_steps_while_backward_computes(ranks: Ranks) -> None:
    ranks.run(overlaps)


def attached_to_ddp_later(group: Any) -> None:
    """To a DDP that has trained already."""
    ours, standard = make(), make()
    ddps = [DistributedDataParallel(model, process_group=group, **MANY_BUCKETS) for model in (ours, standard)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (ours, standard)]
    for step in range(5):
        if step == 2:
            inbackward.apply_optimizer_in_backward(torch.optim.SGD, ours.parameters(), {"lr": 0.1})
            assert inbackward.attach_to_ddp(ddps[0]) is ddps[0]
            optimizers.pop(0)
        for ddp in ddps:
            plain(ddp, step, group.rank())
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert_equal(ours, standard, group)


def test_attached_to_a_ddp_in_use(ranks: Ranks) -> None:
    ranks.run(attached_to_ddp_later, 3)


def dies(group: Any) -> None:
    model = attached()
    ddp = inbackward.wrap_ddp(model, process_group=group)
    plain(ddp, 0, group.rank())
    watched = [
        weakref.ref(thing) for thing in (model, model.last.weight, ddp, *inbackward.optimizers_of(model.last.bias))
    ]
    del model, ddp
    deadline = time.monotonic() + 5
    while any(thing() is not None for thing in watched) and time.monotonic() < deadline:
        gc.collect()  # the thread of the process group lets go of the last callback after backward has gone on
    alive = [type(thing()) for thing in watched]
    assert alive == [type(None)] * 4, alive


def test_all_dies_with_the_model(ranks: Ranks) -> None:
    ranks.run(dies)


def detached(group: Any) -> None:
    """What is detached is an ordinary parameter under DDP; what was never attached is, too."""
    ours, standard = attached(), make()
    other = nn.Linear(4, 3)
    ours.add_module("other", other)
    standard.add_module("other", copy.deepcopy(other))
    wrapped = inbackward.wrap_ddp(ours, process_group=group, find_unused_parameters=True)
    ddp = DistributedDataParallel(standard, process_group=group, find_unused_parameters=True)
    inbackward.detach(ours.last)
    for each in (wrapped, ddp):
        (plain(each, 0, group.rank()))
    torch.testing.assert_close(ours.last.weight.grad, standard.last.weight.grad, rtol=0, atol=0)
    assert ours.first.weight.grad is None
    assert other.weight.grad is None


def test_ordinary_parameters_stay_ordinary(ranks: Ranks) -> None:
    ranks.run(detached, 3)


def put_off(ddp: Any, step: int, rank: int) -> None:
    """The graph reads the last weight again, through an alias."""
    weight = ddp.module.last.weight.detach()
    hidden = (batch(step, rank).requires_grad_() @ torch.ones(4, 6) @ weight.T @ weight[:, :4]).tanh()
    ddp(hidden).pow(2).sum().backward()


@pytest.mark.parametrize("in_place", [True, False])
def test_a_parameter_that_is_read_again_waits(ranks: Ranks, in_place: bool) -> None:
    ranks.run(equals_plain_ddp, 3, put_off, {"gradient_as_bucket_view": in_place, **MANY_BUCKETS})


def clip(param: torch.Tensor) -> None:
    assert param.grad is not None
    param.grad.clamp_(max=0.1)


def user_hooks(group: Any) -> None:
    """Hooks on a parameter see this rank's gradient, whenever they were registered, and may clip it."""
    ours, standard = make(), make()
    ddps = []
    for model in (ours, standard):
        for param in model.first.parameters():
            param.register_post_accumulate_grad_hook(clip)
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, ours.parameters(), {"lr": 0.1})
    optimizer = torch.optim.SGD(standard.parameters(), lr=0.1)
    ddps = [inbackward.wrap_ddp(ours, process_group=group), DistributedDataParallel(standard, process_group=group)]
    for model in (ours, standard):
        for param in model.last.parameters():
            param.register_post_accumulate_grad_hook(clip)
    for step in range(3):
        for ddp in ddps:
            plain(ddp, step, group.rank())
        optimizer.step()
        optimizer.zero_grad()
    assert_equal(ours, standard, group)


def test_what_a_hook_makes_of_the_gradient_is_averaged(ranks: Ranks) -> None:
    ranks.run(user_hooks, 3)
