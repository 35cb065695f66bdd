"""Under `wrap_ddp` and `attach_to_ddp`: what no requirement of the chapter ddp shows, and what is refused."""

from __future__ import annotations

import copy
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import inbackward
from impl_support import (
    ADAM,
    Run,
    assert_trains_alike,
    assert_untouched,
    attach,
    attached,
    batch,
    make,
    on_ranks,
    plain,
)

A_BUCKET_EACH: dict[str, Any] = {"bucket_cap_mb": 1e-5}
VIEWS: dict[str, Any] = {"gradient_as_bucket_view": True}
UNUSED: dict[str, Any] = {"find_unused_parameters": True}
STATIC: dict[str, Any] = {"static_graph": True}
KINDS_OF_BUCKETS: tuple[dict[str, Any], ...] = ({}, VIEWS, A_BUCKET_EACH, VIEWS | A_BUCKET_EACH)


def used_on_one_rank_under_no_sync(ddp: Any, step: int, rank: int) -> None:
    with ddp.no_sync():
        ddp(batch(step + 2, rank), spare=rank == 0).pow(2).sum().backward()
    never_used(ddp, step, rank)


def never_used(ddp: Any, step: int, rank: int) -> None:
    ddp(batch(step, rank), spare=False).pow(2).sum().backward()


def whole_ddp_checkpointed(ddp: Any, step: int, rank: int) -> None:
    checkpoint(ddp, batch(step, rank).requires_grad_(), use_reentrant=True).pow(2).sum().backward()


def two_forwards(ddp: Any, step: int, rank: int) -> None:
    (ddp(batch(step, rank)).pow(2).sum() + ddp(batch(step + 50, rank)).sum()).backward()


def read_again(ddp: Any, step: int, rank: int) -> None:
    """The graph reads the last weight once more after its gradient is complete, through an alias."""
    alias = ddp.module.last.weight.detach()
    ddp((batch(step, rank).requires_grad_() @ alias @ alias.T).tanh()).pow(2).sum().backward()


@pytest.mark.parametrize(
    ("run", "options"),
    [
        (plain, {}),
        (used_on_one_rank_under_no_sync, UNUSED),
        (never_used, STATIC),
        (whole_ddp_checkpointed, {}),
        (whole_ddp_checkpointed, STATIC),
        (two_forwards, {}),
        (read_again, {}),
    ],
)
@on_ranks(3)
def test_three_ranks_train_to_the_bit_as_under_ddp(rank: int, run: Run, options: dict[str, Any]) -> None:
    """The chapter ddp leaves a tolerance to three ranks, and has none of these runs but the first."""
    for buckets in KINDS_OF_BUCKETS:
        ours, standard = attached(), make()
        optimizer = torch.optim.Adam(standard.parameters(), **ADAM)
        wrapped = inbackward.wrap_ddp(ours, **options, **buckets)
        assert_trains_alike(wrapped, DistributedDataParallel(standard, **options, **buckets), optimizer, run, rank)


@pytest.mark.parametrize("by_initial", [True, False])
@pytest.mark.parametrize("unused", [True, False])
@on_ranks(3)
def test_join_with_a_bucket_for_each_parameter(rank: int, by_initial: bool, unused: bool) -> None:
    for views in (VIEWS, {}):
        options = {**A_BUCKET_EACH, **views, "find_unused_parameters": unused}
        ours, standard = attached(), make()
        wrapped, ddp = inbackward.wrap_ddp(ours, **options), DistributedDataParallel(standard, **options)
        optimizer = torch.optim.Adam(standard.parameters(), **ADAM)
        for each in (ddp, wrapped):
            with each.join(divide_by_initial_world_size=by_initial):
                for step in range(2 + rank):
                    each(batch(step, rank), spare=not unused or step % 2 == 0).pow(2).sum().backward()
                    if each is ddp:
                        optimizer.step()
                        optimizer.zero_grad()
        torch.testing.assert_close(ours.state_dict(), standard.state_dict(), rtol=0, atol=0)


def look_up(ddp: Any, step: int, rank: int) -> None:
    ddp(torch.tensor([rank, step, 5])).pow(2).sum().backward()


@pytest.mark.parametrize("views", [VIEWS, {}], ids=["views", "no views"])
@on_ranks(3)
def test_sparse_gradients_are_averaged_and_not_refused(rank: int, views: dict[str, Any]) -> None:
    ours = nn.Sequential(nn.Embedding(6, 4, sparse=True), nn.Linear(4, 2))
    standard = copy.deepcopy(ours)
    attach(ours, torch.optim.SGD, lr=0.1)
    wrapped, ddp = inbackward.wrap_ddp(ours, **views), DistributedDataParallel(standard, **views)
    assert_trains_alike(wrapped, ddp, torch.optim.SGD(standard.parameters(), lr=0.1), look_up, rank)


@on_ranks(3)
def test_attach_to_ddp_takes_a_ddp_that_has_trained(rank: int) -> None:
    ours, standard = make(), make()
    ddp, expected = (DistributedDataParallel(model, **A_BUCKET_EACH) for model in (ours, standard))
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (ours, standard)]
    for step in range(2):
        for each, optimizer in zip((ddp, expected), optimizers, strict=True):
            plain(each, step, rank)
            optimizer.step()
            optimizer.zero_grad()
    attach(ours, torch.optim.SGD, lr=0.1)
    assert inbackward.attach_to_ddp(ddp) is ddp
    assert_trains_alike(ddp, expected, optimizers[1], plain, rank)


def clip(param: torch.Tensor) -> None:
    assert param.grad is not None
    param.grad.clamp_(max=0.1)


@on_ranks(3)
def test_what_a_hook_makes_of_the_gradient_is_averaged(rank: int) -> None:
    """A post-accumulate-grad hook sees the gradient of its own rank, whenever it was registered."""
    ours, standard = make(), make()
    for param in (*ours.first.parameters(), *standard.first.parameters()):
        param.register_post_accumulate_grad_hook(clip)
    attach(ours)
    wrapped, ddp = inbackward.wrap_ddp(ours), DistributedDataParallel(standard)
    for param in (*ours.last.parameters(), *standard.last.parameters()):
        param.register_post_accumulate_grad_hook(clip)
    assert_trains_alike(wrapped, ddp, torch.optim.Adam(standard.parameters(), **ADAM), plain, rank)


@on_ranks(2)
def test_model_ddp_and_optimizers_are_collected(rank: int) -> None:
    model = attached()
    ddp = inbackward.wrap_ddp(model)
    plain(ddp, 0, rank)
    things = (model, model.last.weight, ddp, *inbackward.optimizers_of(model.last.bias))
    watched = [weakref.ref(thing) for thing in things]
    del model, ddp, things
    deadline = time.monotonic() + 5
    while any(thing() is not None for thing in watched) and time.monotonic() < deadline:
        gc.collect()  # the thread of the process group lets go of the last callback after backward has gone on
    assert [thing() for thing in watched] == [None] * 4


@on_ranks(3)
def test_a_detached_parameter_keeps_its_averaged_gradient(rank: int) -> None:
    ours, standard = attached(), make()
    wrapped, ddp = inbackward.wrap_ddp(ours), DistributedDataParallel(standard)
    inbackward.detach(ours.last)
    for each in (wrapped, ddp):
        plain(each, 0, rank)
    torch.testing.assert_close(ours.last.weight.grad, standard.last.weight.grad, rtol=0, atol=0)
    assert ours.first.weight.grad is None


@on_ranks(2)
def test_ranks_without_wrap_ddp_are_refused_before_a_step(rank: int) -> None:
    in_plain_ddp, alone = attached(), attached()
    with pytest.raises(RuntimeError, match=r"There are 2 ranks.*inbackward\.attach_to_ddp"):
        plain(DistributedDataParallel(in_plain_ddp), 0, rank)
    with pytest.raises(RuntimeError, match=r"inbackward\.declare_local"):
        plain(alone, 0, rank)
    for model in (in_plain_ddp, alone):
        assert_untouched(model)


@on_ranks(2)
def test_what_is_declared_local_trains_on_the_gradients_of_its_rank(rank: int) -> None:
    ours, standard = attached(), make()
    inbackward.declare_local(ours)
    assert_trains_alike(ours, standard, torch.optim.Adam(standard.parameters(), **ADAM), plain, rank)


def test_only_what_is_attached_can_be_declared_local() -> None:
    model = nn.Linear(2, 2)
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, [model.weight], {})
    with pytest.raises(ValueError, match="Hand an optimizer over before declare_local"):
        inbackward.declare_local(model)
    inbackward.declare_local(model.weight)
    inbackward.declare_local([model.weight])
    with pytest.raises(TypeError, match=r"Expected a torch Tensor, not 1\. Give declare_local"):
        inbackward.declare_local([1])  # type: ignore[list-item]


@on_ranks(2)
def test_what_cannot_be_attached_to_is_refused() -> None:
    hooked = DistributedDataParallel(make())
    hooked.register_comm_hook(None, allreduce_hook)
    wrapped = inbackward.wrap_ddp(make())
    for ddp in (hooked, wrapped):
        with pytest.raises(ValueError, match=r"a communication hook already.*Do without inbackward\.attach_to_ddp"):
            inbackward.attach_to_ddp(ddp)
    with pytest.raises(RuntimeError, match="Do without the other hook"):
        wrapped.register_comm_hook(None, allreduce_hook)
    model = make()
    with pytest.raises(TypeError, match=r"(?s)Expected a DistributedDataParallel, not Net.*inbackward\.wrap_ddp"):
        inbackward.attach_to_ddp(model)  # type: ignore[arg-type]
    delayed = [("last.bias", model.last.bias)]
    with pytest.raises(ValueError, match=r"delay_all_reduce_named_params.*Do without them"):
        inbackward.wrap_ddp(model, delay_all_reduce_named_params=delayed, param_to_hook_all_reduce=model.last.weight)


def past_the_wrapped_module(ddp: Any) -> None:
    with torch.no_grad():
        ddp(batch())
    plain(ddp.module)


def of_one_parameter(ddp: Any) -> None:
    ddp(batch()).sum().backward(inputs=[ddp.module.last.weight])


@pytest.mark.parametrize(
    ("run", "match"), [(past_the_wrapped_module, "call the wrapped module"), (of_one_parameter, "leave out inputs=")]
)
@on_ranks(2)
def test_a_backward_that_ddp_does_not_average_is_refused_before_a_step(run: Callable[[Any], None], match: str) -> None:
    model = attached()
    ddp = inbackward.wrap_ddp(model)
    with pytest.raises(RuntimeError, match=match):
        run(ddp)
    assert_untouched(model)


@on_ranks(2)
def test_a_parameter_that_ddp_found_frozen_is_refused_when_it_thaws(rank: int) -> None:
    model = attached()
    model.first.requires_grad_(requires_grad=False)
    ddp = inbackward.wrap_ddp(model)
    model.first.requires_grad_(requires_grad=True)
    with pytest.raises(RuntimeError, match="frozen when the module was wrapped"):
        plain(ddp, 0, rank)
    assert torch.equal(model.first.weight, make().first.weight)


@on_ranks(2)
def test_a_second_backward_over_a_graph_raises_as_in_the_standard_loop(rank: int) -> None:
    model = attached()
    ddp = inbackward.wrap_ddp(model)
    loss = ddp(batch(0, rank)).pow(2).sum()
    loss.backward(retain_graph=True)
    after_one = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match=r"parameter 'last\.weight' .* was stepped"):
        loss.backward()
    torch.testing.assert_close(model.state_dict(), after_one, rtol=0, atol=0)


@on_ranks(2)
def test_after_a_step_that_raises_on_one_rank_training_goes_on(rank: int) -> None:
    """The error is raised where the step was, and after DDP is through with the backward."""
    model = attached(torch.optim.SGD, lr=0.1)
    ddp = inbackward.wrap_ddp(model, **A_BUCKET_EACH)

    def boom(*_: Any) -> None:
        raise ZeroDivisionError

    if rank == 0:
        handle = inbackward.optimizers_of(model.last.bias)[0].register_step_pre_hook(boom)
        with pytest.raises(ZeroDivisionError):
            plain(ddp, 0, rank)
        handle.remove()
    else:
        plain(ddp, 0, rank)
    model.last.bias.grad = None
    plain(ddp, 1, rank)
    assert all(param.grad is None for param in model.parameters())


@on_ranks(1)
def test_a_gradient_of_the_user_that_comes_after_the_step_is_stepped_without_a_ddp_of_one_rank() -> None:
    """As without a process group, though a DDP of one rank would have put it there, and it would be freed."""
    first, last = nn.Linear(4, 4), nn.Linear(4, 4)
    params = [*first.parameters(), *last.parameters()]
    inbackward.step_in_backward(torch.optim.SGD(params, lr=0.5), bucket_bytes=0)
    stepped = []

    def add(_: torch.Tensor) -> None:
        stepped.append(last.weight.detach().clone())
        last.weight.grad = torch.ones(4, 4)

    first.weight.register_post_accumulate_grad_hook(add)
    last(first(torch.ones(2, 4))).sum().backward()
    assert torch.equal(last.weight, stepped[0] - 0.5)
    assert last.weight.grad is None
