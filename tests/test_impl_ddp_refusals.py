"""What is refused under several ranks, and how errors come out."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

import inbackward
from impl_ddp_runs import attached, batch, make, plain
from impl_ranks import Ranks, shared

MANY_BUCKETS: dict[str, Any] = {"bucket_cap_mb": 0.0001}


@pytest.fixture
def ranks() -> Ranks:
    return shared()


def assert_untouched(model: nn.Module) -> None:
    for param, expected in zip(model.parameters(), make().parameters(), strict=True):
        assert torch.equal(param, expected)
    assert not any(optimizer.state for optimizer in inbackward.get_in_backward_optimizers(model))


def plain_ddp_is_refused(group: Any) -> None:
    model = attached()
    ddp = DistributedDataParallel(model, process_group=group)
    with pytest.raises(RuntimeError, match=r"inbackward\.attach_to_ddp"):
        plain(ddp, 0, group.rank())
    assert_untouched(model)
    alone = attached()
    with pytest.raises(RuntimeError, match=r"inbackward\.declare_local"):
        plain(alone, 0, group.rank())
    assert_untouched(alone)


def test_what_nobody_answers_for_is_refused(ranks: Ranks) -> None:
    ranks.run(plain_ddp_is_refused)


def declared(group: Any) -> None:
    ours, standard = attached(), make()
    optimizer = torch.optim.Adam(standard.parameters(), lr=0.01, weight_decay=0.1)
    inbackward.declare_local(ours)
    for step in range(3):
        plain(ours, step, group.rank())
        plain(standard, step, group.rank())
        optimizer.step()
        optimizer.zero_grad()
    for mine, expected in zip(ours.parameters(), standard.parameters(), strict=True):
        assert torch.equal(mine, expected)
        assert mine.grad is None


def test_declared_local(ranks: Ranks) -> None:
    ranks.run(declared)


def test_only_what_is_attached_can_be_declared_local() -> None:
    model = nn.Linear(2, 2)
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, [model.weight], {})
    with pytest.raises(ValueError, match="apply_optimizer_in_backward before declare_local"):
        inbackward.declare_local(model)
    inbackward.declare_local(model.weight)
    inbackward.declare_local([model.weight])
    with pytest.raises(TypeError, match=r"Expected a torch Tensor, not 1\. Give declare_local"):
        inbackward.declare_local([1])  # type: ignore[list-item]


def other_ways_of_gradients(group: Any) -> None:
    ddp = DistributedDataParallel(make(), process_group=group)
    ddp.register_comm_hook(None, allreduce_hook)
    with pytest.raises(ValueError, match="a communication hook already"):
        inbackward.attach_to_ddp(ddp)
    ddp = inbackward.wrap_ddp(make(), process_group=group)
    with pytest.raises(ValueError, match="a communication hook already"):
        inbackward.attach_to_ddp(ddp)
    with pytest.raises(RuntimeError, match="Do without the other hook"):
        ddp.register_comm_hook(None, allreduce_hook)
    with pytest.raises(TypeError, match=r"inbackward\.wrap_ddp"):
        inbackward.attach_to_ddp(make())  # type: ignore[arg-type]
    model = make()
    delayed = {
        "delay_all_reduce_named_params": [("last.bias", model.last.bias)],
        "param_to_hook_all_reduce": model.last.weight,
    }
    with pytest.raises(ValueError, match="delay_all_reduce_named_params"):
        inbackward.wrap_ddp(model, process_group=group, **delayed)


def test_other_ways_of_gradients_are_refused(ranks: Ranks) -> None:
    ranks.run(other_ways_of_gradients)


def not_averaged(group: Any) -> None:
    rank = group.rank()
    model = attached()
    ddp = inbackward.wrap_ddp(model, process_group=group)
    with torch.no_grad():
        ddp(batch(0, rank))
    model.load_state_dict(make().state_dict())  # but for the statistics of the batch
    with pytest.raises(RuntimeError, match="call the wrapped module"):
        plain(ddp.module, 0, rank)
    assert_untouched(model)


def thawed(group: Any) -> None:
    model = attached()
    model.first.requires_grad_(requires_grad=False)
    ddp = inbackward.wrap_ddp(model, process_group=group)
    model.first.requires_grad_(requires_grad=True)
    before = model.first.weight.detach().clone()
    with pytest.raises(RuntimeError, match="frozen when the module was wrapped"):
        plain(ddp, 0, group.rank())
    assert torch.equal(model.first.weight, before)


@pytest.mark.parametrize("check", [not_averaged, thawed])
def test_what_ddp_does_not_average_is_refused(ranks: Ranks, check: Any) -> None:
    ranks.run(check)


def step_fails(group: Any) -> None:
    """On one rank; it raises there after DDP is through, and training goes on."""
    model = attached(torch.optim.SGD, lr=0.1)
    ddp = inbackward.wrap_ddp(model, process_group=group, **MANY_BUCKETS)

    def boom(*_: Any) -> None:
        raise ZeroDivisionError

    handle = inbackward.optimizers_of(model.last.bias)[0].register_step_pre_hook(boom)
    if group.rank() == 0:
        with pytest.raises(ZeroDivisionError):
            plain(ddp, 0, 0)
    else:
        handle.remove()
        plain(ddp, 0, group.rank())
    handle.remove()
    model.last.bias.grad = None
    plain(ddp, 1, group.rank())
    assert all(param.grad is None for param in model.parameters())


def test_an_exception_in_a_step_reaches_the_caller(ranks: Ranks) -> None:
    ranks.run(step_fails)


def one_rank_raises(group: Any) -> None:
    """The others get an error when the process group's patience is over."""
    plain(inbackward.wrap_ddp(attached(), process_group=group), 0, group.rank())  # what torch imports late takes time
    distributed.barrier(group)
    impatient = distributed.new_group(list(range(group.size())), timeout=timedelta(seconds=3))
    model = attached()
    ddp = inbackward.wrap_ddp(model, process_group=impatient, **MANY_BUCKETS)
    plain(ddp, 0, group.rank())

    def boom(_: torch.Tensor) -> None:
        raise ZeroDivisionError

    if group.rank() == 0:
        model.first.weight.register_post_accumulate_grad_hook(boom)
    with pytest.raises(ZeroDivisionError if group.rank() == 0 else RuntimeError):
        plain(ddp, 1, group.rank())


def test_a_rank_that_raises_does_not_hang_the_others(ranks: Ranks) -> None:
    ranks.run(one_rank_raises, 4)


def inside_no_sync(group: Any) -> None:
    model = attached()
    ddp = inbackward.wrap_ddp(model, process_group=group)
    with ddp.no_sync():
        plain(ddp, 0, group.rank())
        plain(ddp, 1, group.rank())
    assert_untouched(model)
    assert all(param.grad is not None for name, param in model.named_parameters())


def test_nothing_steps_inside_no_sync(ranks: Ranks) -> None:
    ranks.run(inside_no_sync)


def part_of_backward(group: Any) -> None:
    """With a bucket that stays incomplete, nothing of it is stepped, and there is an error."""
    model = attached()
    ddp = inbackward.wrap_ddp(model, process_group=group)
    with pytest.raises(RuntimeError, match="leave out inputs="):
        ddp(batch(0, group.rank())).sum().backward(inputs=[model.last.weight])
    assert_untouched(model)


def second_backward(group: Any) -> None:
    model = attached()
    ddp = inbackward.wrap_ddp(model, process_group=group)
    loss = ddp(batch(0, group.rank())).pow(2).sum()
    loss.backward(retain_graph=True)
    after_one = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):  # torch's own; so in the standard loop
        loss.backward()
    torch.testing.assert_close(model.state_dict(), after_one, rtol=0, atol=0)


@pytest.mark.parametrize("check", [part_of_backward, second_backward])
def test_a_backward_that_ddp_does_not_average_is_refused(ranks: Ranks, check: Any) -> None:
    ranks.run(check)
