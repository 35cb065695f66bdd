"""`hook_then_optimizer` of the reference implementation: what it refuses, and how errors and unusual hooks fare."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

import inbackward
from impl_ddp_runs import batch, make
from impl_ranks import Ranks, shared

SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}


@pytest.fixture
def ranks() -> Ranks:
    return shared()


def wrapped(group: Any, **options: Any) -> DistributedDataParallel:
    return DistributedDataParallel(make(), process_group=group, **options)


def functional(ddp: nn.Module) -> Any:
    return inbackward.functional_optimizer(torch.optim.SGD, ddp.parameters(), **SGD)


def loss(ddp: Any, step: int, rank: int) -> torch.Tensor:
    total: torch.Tensor = ddp(batch(step, rank)).pow(2).sum()
    return total


def refusals(group: Any) -> None:
    ddp = wrapped(group)
    register = inbackward.hook_then_optimizer
    with pytest.raises(TypeError, match="Expected a DistributedDataParallel, not Net"):
        register(make(), allreduce_hook, group, functional(ddp))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="comm_hook is None"):
        register(ddp, None, group, functional(ddp))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"SGD has no step_param.*inbackward\.functional_optimizer"):
        register(ddp, allreduce_hook, group, torch.optim.SGD(ddp.parameters()))
    with pytest.raises(ValueError, match=r"does not reduce .* of shape \(7,\)"):
        register(ddp, allreduce_hook, group, functional(ddp), [nn.Parameter(torch.ones(7))])
    some = inbackward.functional_optimizer(torch.optim.SGD, [ddp.module.last.bias])
    with pytest.raises(ValueError, match=r"does not hold the parameter 'first.weight'. Give params="):
        register(ddp, allreduce_hook, group, some)
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, [ddp.module.last.bias], {})
    with pytest.raises(ValueError, match=r"attached to the parameter 'last.bias'.*inbackward\.detach"):
        register(ddp, allreduce_hook, group, functional(ddp))
    inbackward.detach(ddp.module)
    register(ddp, allreduce_hook, group, functional(ddp))
    with pytest.raises(ValueError, match="a communication hook already"):
        register(ddp, allreduce_hook, group, functional(ddp))
    with pytest.raises(ValueError, match="a communication hook already"):
        inbackward.attach_to_ddp(ddp)


@pytest.mark.parametrize("size", [1, 2])
def test_what_cannot_be_is_refused(ranks: Ranks, size: int) -> None:
    ranks.run(refusals, size)


def attached_later(group: Any) -> None:
    ddp = wrapped(group)
    inbackward.hook_then_optimizer(ddp, allreduce_hook, group, functional(ddp))
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, [ddp.module.last.bias], {})
    with pytest.raises(RuntimeError, match="steps behind a communication hook already"):
        loss(ddp, 0, group.rank()).backward()


@pytest.mark.parametrize("size", [1, 2])
def test_an_optimizer_that_is_attached_later_is_refused(ranks: Ranks, size: int) -> None:
    ranks.run(attached_later, size)


def another_tensor(state: Any, bucket: Any) -> Any:
    """A hook whose result is no view of the bucket."""
    halves = bucket.buffer() / 2
    work = torch.distributed.all_reduce(halves, group=state, async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])


def equals_standard(group: Any, hook: Any, run: Any = loss, **options: Any) -> None:
    ours, standard = wrapped(group, **options), wrapped(group, **options)
    inbackward.hook_then_optimizer(ours, hook, group, functional(ours))
    standard.register_comm_hook(group, lambda state, bucket: hook(state, bucket))  # noqa: PLW0108 (DDP reads annotations)
    optimizer = torch.optim.SGD(standard.parameters(), **SGD)
    for step in range(4):
        for ddp in (ours, standard):
            ddp.zero_grad()
            run(ddp, step, group.rank()).backward()
        optimizer.step()
        for (name, param), other in zip(ours.named_parameters(), standard.parameters(), strict=True):
            assert torch.equal(param, other), name
            assert param.grad is not None
            assert other.grad is not None
            assert torch.equal(param.grad, other.grad), name


@pytest.mark.parametrize("view", [True, False])
def test_what_the_hook_returns_is_what_counts(ranks: Ranks, view: bool) -> None:
    ranks.run(equals_standard, 2, another_tensor, gradient_as_bucket_view=view, bucket_cap_mb=0.0001)


def read_again(ddp: Any, step: int, rank: int) -> torch.Tensor:
    """The graph reads parameters by another tensor, after their gradients are complete."""
    again: torch.Tensor = (ddp.module.last.weight.detach() * ddp.module.first.weight.sum()).pow(2).sum()
    return loss(ddp, step, rank) + again


def test_what_the_graph_may_yet_read_is_stepped_at_the_end(ranks: Ranks) -> None:
    ranks.run(equals_standard, 2, allreduce_hook, read_again, bucket_cap_mb=0.0001)


def step_fails(group: Any) -> None:
    ddp = wrapped(group, bucket_cap_mb=0.0001)

    class Fails:
        def step_param(self, param: torch.Tensor, grad: torch.Tensor) -> None:
            if param is ddp.module.last.bias:
                raise ZeroDivisionError

    inbackward.hook_then_optimizer(ddp, allreduce_hook, group, Fails())
    with pytest.raises(ZeroDivisionError):
        loss(ddp, 0, group.rank()).backward()
    assert all(param.grad is not None for param in ddp.parameters())


def test_an_exception_in_a_step_reaches_the_caller(ranks: Ranks) -> None:
    ranks.run(step_fails)
