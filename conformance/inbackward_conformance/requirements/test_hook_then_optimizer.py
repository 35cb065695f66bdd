"""A functional optimizer behind a communication hook of DistributedDataParallel: it steps bucket by bucket.

Equal is what the same communication hook gives, followed by an ordinary optimizer after backward. It is equal to the
bit, on any number of ranks: both reduce by the same hook.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from inbackward_conformance.adapters.implementation import FUNCTIONAL_OPTIMIZERS, Implementation
from inbackward_conformance.catalogue.models import MLP
from inbackward_conformance.checking.check import Check
from inbackward_conformance.outcome import NotOffered, NotRun
from inbackward_conformance.plan import ALL, Assignment, Plan, Ranks
from inbackward_conformance.plan.events import (
    AccumulateUnsynchronised,
    Backward,
    Event,
    HookThenOptimizer,
    PerRank,
    WrapDDP,
)
from inbackward_conformance.ranks.job import Rank
from inbackward_conformance.ranks.on_ranks import implementation as implementation_of

SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
FOUR_STEPS = (Backward(),) * 4


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_allreduce(check: Check, world_size: int) -> None:
    """Behind the all-reduce, every rank trains as with an ordinary optimizer."""
    check(_plan(world_size=world_size))


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
@pytest.mark.parametrize("optimizer", FUNCTIONAL_OPTIMIZERS)
def test_every_optimizer(check: Check, optimizer: str) -> None:
    """Every functional optimizer that has `step_param` does."""
    options = SGD if optimizer == "SGD" else {"lr": 0.05}
    check(_plan(Assignment(optimizer, options)))


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize(
    ("comm_hook", "dtype"), [("fp16_compress", "float16"), ("bf16_compress", "bfloat16")], ids=["fp16", "bf16"]
)
def test_compression(check: Check, comm_hook: str, dtype: str, world_size: int) -> None:
    """Behind a hook that compresses gradients to 16 bits, parameters step by what comes out of it."""
    check.on_ranks(world_size, _reduces, dtype)
    check(_plan(comm_hook=comm_hook, world_size=world_size))


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
def test_power_sgd(check: Check) -> None:
    """Behind PowerSGD, which begins with plain all-reduces, parameters step by its approximations."""
    check(_plan(comm_hook="powerSGD", events=(Backward(),) * 6))


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
def test_some_parameters(check: Check) -> None:
    """Of `params` only these are stepped; the others are reduced, and left alone with their gradients."""
    check(_plan(Assignment("SGD", SGD, ("0.weight", "2.bias"))))


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
@pytest.mark.parametrize("view", [True, False], ids=["views", "no-views"])
@pytest.mark.parametrize("everywhere", [False, True], ids=["one-rank", "all-ranks"])
def test_unused_parameters(check: Check, everywhere: bool, view: bool) -> None:
    """Unused on one rank a parameter is stepped on all; unused on all, weight decay and momentum leave it alone."""
    without = Backward(skip=("left",))
    event = without if everywhere else PerRank((Backward(), without))
    options = {"find_unused_parameters": True, "gradient_as_bucket_view": view}
    check(_plan(model="Branches", ddp=options, events=(Backward(), event, event, Backward())))


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
def test_static_graph(check: Check) -> None:
    """`static_graph=True`."""
    check(_plan(ddp={"static_graph": True}))


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
@pytest.mark.parametrize("view", [True, False], ids=["views", "no-views"])
def test_no_sync(check: Check, view: bool) -> None:
    """Under `no_sync()` nothing steps; what has accumulated is stepped with the next synchronised backward, once."""
    twice = (AccumulateUnsynchronised(), AccumulateUnsynchronised(), Backward())
    check(_plan(ddp={"gradient_as_bucket_view": view}, events=(Backward(), *twice, *twice)))


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
@pytest.mark.parametrize("view", [True, False], ids=["views", "no-views"])
def test_many_buckets(check: Check, view: bool) -> None:
    """A bucket for each parameter, gradients views of it or not: buckets are rebuilt after the first backward."""
    check(_plan(ddp={"bucket_cap_mb": 1e-5, "gradient_as_bucket_view": view}))


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
@pytest.mark.parametrize("view", [True, False], ids=["views", "no-views"])
def test_gradients_stay(check: Check, view: bool) -> None:
    """After backward `.grad` holds the reduced gradient, and it is the caller's to zero."""
    check.on_ranks(2, _keeps_gradients, view)


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
def test_without_step_param(check: Check) -> None:
    """An optimizer without `step_param` is rejected when it is registered, and training is as before."""
    check.on_ranks(1, _rejects_optimizer)


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
def test_foreign_parameters(check: Check) -> None:
    """Parameters that the model does not have are rejected when they are registered, and training is as before."""
    check.on_ranks(1, _rejects_parameters)


@pytest.mark.must
@pytest.mark.needs("hook_then_optimizer")
def test_registered_twice(check: Check) -> None:
    """A second registration on one DDP is rejected, and the first goes on as before."""
    check.on_ranks(1, _rejects_second)


def _reduces(rank: Rank, _: str, dtype: str) -> None:
    try:
        torch.distributed.all_reduce(torch.ones(2, dtype=getattr(torch, dtype), device=rank.device))
    except RuntimeError as error:
        raise NotRun(f"the backend does not reduce {dtype}: {error}") from error


def _keeps_gradients(rank: Rank, name: str, view: bool) -> None:
    implementation = implementation_of(name)
    hooked, expected = _pair(rank, gradient_as_bucket_view=view)
    _register(implementation, hooked)
    expected.register_comm_hook(None, default_hooks.allreduce_hook)
    _backward(rank, hooked)
    _backward(rank, expected)
    for param, other in zip(hooked.parameters(), expected.parameters(), strict=True):
        assert param.grad is not None, "a gradient is gone after backward"
        assert other.grad is not None
        assert torch.equal(param.grad, other.grad), "after backward .grad does not hold the reduced gradient"


def _rejects_optimizer(rank: Rank, name: str) -> None:
    ddp, _ = _pair(rank)
    implementation = implementation_of(name)
    hook, ordinary = default_hooks.allreduce_hook, torch.optim.SGD(ddp.parameters(), lr=0.1)
    _rejected("an optimizer without step_param", lambda: implementation.hook_then_optimizer(ddp, hook, None, ordinary))
    _trains_plainly(rank, ddp)


def _rejects_parameters(rank: Rank, name: str) -> None:
    implementation = implementation_of(name)
    ddp, other = _pair(rank)
    params = [*ddp.parameters(), next(iter(other.parameters()))]
    _rejected("a parameter that the model does not have", lambda: _register(implementation, ddp, params, params))
    _trains_plainly(rank, ddp)


def _rejects_second(rank: Rank, name: str) -> None:
    implementation = implementation_of(name)
    ddp, expected = _pair(rank)
    _register(implementation, ddp)
    _rejected("a second registration", lambda: _register(implementation, ddp))
    optimizer = torch.optim.SGD(expected.parameters(), **SGD)
    for _ in range(2):
        for each in (ddp, expected):
            each.zero_grad()
            _backward(rank, each)
        optimizer.step()
    for param, other in zip(ddp.parameters(), expected.parameters(), strict=True):
        assert torch.equal(param, other), "after the second registration the first trains differently"


def _register(
    implementation: Implementation,
    ddp: nn.Module,
    held: list[nn.Parameter] | None = None,
    params: list[nn.Parameter] | None = None,
) -> None:
    functional = implementation.functional_optimizer(torch.optim.SGD, held or list(ddp.parameters()), **SGD)
    implementation.hook_then_optimizer(ddp, default_hooks.allreduce_hook, None, functional.target, params)


def _rejected(what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except NotOffered:  # a RuntimeError of its kind, too
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        assert str(error).strip(), f"{what} is rejected without a message"  # noqa: PT017
        return
    raise AssertionError(f"{what} is accepted")


def _trains_plainly(rank: Rank, ddp: nn.Module) -> None:
    before = [param.detach().clone() for param in ddp.parameters()]
    _backward(rank, ddp)
    for param, value in zip(ddp.parameters(), before, strict=True):
        assert torch.equal(param, value), "it is rejected, but backward steps parameters"
        assert param.grad is not None, "it is rejected, but gradients are gone after backward"


def _pair(rank: Rank, **options: Any) -> tuple[DistributedDataParallel, DistributedDataParallel]:
    """Return two models of the same values, wrapped."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(DistributedDataParallel(MLP().to(rank.device), **options))
    return models[0], models[1]


def _backward(rank: Rank, ddp: nn.Module) -> None:
    features: Tensor = torch.linspace(-1, 1 + rank.number, 12, device=rank.device).reshape(3, 4)
    ddp(features).square().sum().backward()


def _plan(
    assignment: Assignment = Assignment("SGD", SGD, ALL),  # noqa: B008 (frozen)
    *,
    comm_hook: str = "allreduce",
    model: str = "MLP",
    ddp: dict[str, Any] | None = None,
    events: tuple[Event, ...] = FOUR_STEPS,
    world_size: int = 2,
) -> Plan:
    register = (WrapDDP(ddp or {}, plainly=True), HookThenOptimizer(assignment, comm_hook))
    return Plan(model, (), (*register, *events), ranks=Ranks(world_size))
