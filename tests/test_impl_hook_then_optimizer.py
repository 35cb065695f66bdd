"""`hook_then_optimizer`: what it refuses, and how unusual hooks and errors fare."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

import inbackward
from impl_support import Run, batch, make, on_ranks, plain

SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
A_BUCKET_EACH: dict[str, Any] = {"bucket_cap_mb": 1e-5}


def functional(ddp: nn.Module) -> Any:
    return inbackward.functional_optimizer(torch.optim.SGD, ddp.parameters(), **SGD)


@on_ranks(1, 2)
def test_refusals_name_the_remedy() -> None:
    ddp = DistributedDataParallel(make())
    register = inbackward.hook_then_optimizer
    with pytest.raises(TypeError, match="Expected a DistributedDataParallel, not Net"):
        register(make(), allreduce_hook, None, functional(ddp))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="comm_hook is None"):
        register(ddp, None, None, functional(ddp))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"SGD has no step_param.*inbackward\.functional_optimizer"):
        register(ddp, allreduce_hook, None, torch.optim.SGD(ddp.parameters()))
    with pytest.raises(ValueError, match=r"does not reduce .* of shape \(7,\)"):
        register(ddp, allreduce_hook, None, functional(ddp), [nn.Parameter(torch.ones(7))])
    some = inbackward.functional_optimizer(torch.optim.SGD, [ddp.module.last.bias])
    with pytest.raises(ValueError, match=r"does not hold the parameter 'first.weight'. Give params="):
        register(ddp, allreduce_hook, None, some)
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, [ddp.module.last.bias], {})
    with pytest.raises(ValueError, match=r"attached to the parameter 'last.bias'.*inbackward\.detach"):
        register(ddp, allreduce_hook, None, functional(ddp))
    inbackward.detach(ddp.module)
    register(ddp, allreduce_hook, None, functional(ddp))
    with pytest.raises(ValueError, match="a communication hook already"):
        register(ddp, allreduce_hook, None, functional(ddp))
    with pytest.raises(ValueError, match="a communication hook already"):
        inbackward.attach_to_ddp(ddp)


@on_ranks(1, 2)
def test_an_optimizer_that_is_attached_later_is_refused(rank: int) -> None:
    ddp = DistributedDataParallel(make())
    inbackward.hook_then_optimizer(ddp, allreduce_hook, None, functional(ddp))
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, [ddp.module.last.bias], {})
    with pytest.raises(RuntimeError, match="steps behind a communication hook already"):
        plain(ddp, 0, rank)


def return_another_tensor(_: Any, bucket: Any) -> Any:
    """Returns no view of the bucket."""
    halves = bucket.buffer() / 2
    work = distributed.all_reduce(halves, async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])


def read_again(ddp: Any, step: int, rank: int) -> None:
    """The graph reads a parameter through another tensor after its gradient is complete."""
    again = (ddp.module.last.weight.detach().sum() * ddp.module.first.weight.sum()).pow(2)
    (ddp(batch(step, rank)).pow(2).sum() + again).backward()


@pytest.mark.parametrize("comm_hook", [return_another_tensor, allreduce_hook])
@pytest.mark.parametrize("run", [plain, read_again])
@pytest.mark.parametrize("views", [True, False], ids=["views", "no views"])
@on_ranks(2)
def test_what_the_hook_returns_is_stepped_as_after_backward(rank: int, comm_hook: Any, run: Run, views: bool) -> None:
    options = {**A_BUCKET_EACH, "gradient_as_bucket_view": views}
    ours, standard = (DistributedDataParallel(make(), **options) for _ in range(2))
    inbackward.hook_then_optimizer(ours, comm_hook, None, functional(ours))
    standard.register_comm_hook(None, lambda state, bucket: comm_hook(state, bucket))  # noqa: PLW0108 (DDP reads annotations)
    optimizer = torch.optim.SGD(standard.parameters(), **SGD)
    for step in range(4):
        for ddp in (ours, standard):
            ddp.zero_grad()
            run(ddp, step, rank)
        optimizer.step()
        for (name, param), other in zip(ours.named_parameters(), standard.parameters(), strict=True):
            assert torch.equal(param, other), name
            torch.testing.assert_close(param.grad, other.grad, rtol=0, atol=0, msg=name)


@on_ranks(2)
def test_the_error_of_a_step_reaches_the_caller_of_backward(rank: int) -> None:
    ddp = DistributedDataParallel(make(), **A_BUCKET_EACH)

    class Fails:
        def step_param(self, param: torch.Tensor, _: torch.Tensor) -> None:
            if param is ddp.module.last.bias:
                raise ZeroDivisionError

    inbackward.hook_then_optimizer(ddp, allreduce_hook, None, Fails())
    with pytest.raises(ZeroDivisionError):
        plain(ddp, 0, rank)
    assert all(param.grad is not None for param in ddp.parameters())
