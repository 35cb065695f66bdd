"""DistributedDataParallel: what a standard optimizer gives under it, on every rank.

The implementation's own call wraps the model where it has one. Batches differ from rank to rank. Up to two ranks,
equal means to the bit; with three and more the order of sums and the rounding of 1/n are the reducer's own affair, and
a difference of some roundings passes.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inbackward_conformance.check import Check
from inbackward_conformance.events import (
    AccumulateUnsynchronised,
    Backward,
    Event,
    Join,
    PerRank,
    WrapDDP,
)
from inbackward_conformance.models import MLP
from inbackward_conformance.on_ranks import implementation as implementation_of
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.ranks.job import Rank

ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
MOMENTUM = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
FOUR_STEPS = (Backward(),) * 4

A_BUCKET_EACH = {"bucket_cap_mb": 1e-5}

PLACES: dict[str, tuple[tuple[Event, ...], tuple[Event, ...]]] = {
    "before": ((), (WrapDDP(),)),
    "after": ((WrapDDP(),), ()),
}


def ranks(world_size: int) -> Ranks:
    """Return so many ranks, with the tolerance that the chapter states."""
    return Ranks(world_size, tolerance=0.0 if world_size <= 2 else 2e-6)


@pytest.mark.must
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("place", PLACES)
def test_equality(check: Check, place: str, world_size: int) -> None:
    """Attached before or after wrapping, every rank trains as under DDP with a standard optimizer."""
    before, events = PLACES[place]
    check(Plan("MLP", (ADAMW,), (*events, *FOUR_STEPS), before=before, ranks=ranks(world_size)))


@pytest.mark.must
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("view", [True, False], ids=["views", "no-views"])
def test_many_buckets(check: Check, place: str, view: bool) -> None:
    """A bucket for each parameter, gradients views of it or not: buckets are rebuilt after the first backward."""
    options = {**A_BUCKET_EACH, "gradient_as_bucket_view": view}
    wrap = WrapDDP(options)
    before, events = ((), (wrap,)) if place == "before" else ((wrap,), ())
    check(Plan("MLP", (MOMENTUM,), (*events, *FOUR_STEPS), before=before, ranks=ranks(2)))


@pytest.mark.must
def test_static_graph(check: Check) -> None:
    """`static_graph=True`."""
    check(_wrapped({"static_graph": True}, "MLP", FOUR_STEPS))


@pytest.mark.must
@pytest.mark.parametrize("view", [True, False], ids=["views", "no-views"])
@pytest.mark.parametrize("everywhere", [False, True], ids=["one-rank", "all-ranks"])
def test_unused_parameters(check: Check, everywhere: bool, view: bool) -> None:
    """`find_unused_parameters=True`: unused on one rank a parameter is stepped on all, unused on all it stays put.

    Neither weight decay nor momentum moves it.
    """
    without = Backward(skip=("left",))
    event = without if everywhere else PerRank((Backward(), without))
    options = {"find_unused_parameters": True, "gradient_as_bucket_view": view}
    check(_wrapped(options, "Branches", (Backward(), event, event, Backward())))


@pytest.mark.must
@pytest.mark.parametrize("view", [True, False], ids=["views", "no-views"])
def test_no_sync(check: Check, view: bool) -> None:
    """Gradients accumulated under `no_sync()` are stepped with the next synchronised backward, once."""
    twice = (AccumulateUnsynchronised(), AccumulateUnsynchronised(), Backward())
    check(_wrapped({"gradient_as_bucket_view": view}, "MLP", (Backward(), *twice, *twice)))


@pytest.mark.must
def test_shared_parameter(check: Check) -> None:
    """A parameter under two names is reduced and stepped once."""
    check(_wrapped({}, "TwoLayers", FOUR_STEPS, shared=(("0.weight", "1.weight"),)))


@pytest.mark.must
def test_two_optimizers(check: Check) -> None:
    """Two optimizers on each parameter step in the order of attachment."""
    check(_wrapped({}, "MLP", FOUR_STEPS, assignments=(MOMENTUM, ADAMW)))


@pytest.mark.must
@pytest.mark.parametrize("initial", [True, False], ids=["initial-world-size", "active-ranks"])
def test_join(check: Check, initial: bool) -> None:
    """Uneven inputs under `join()`, divided by all ranks or by those that are still active."""
    check(_wrapped({}, "MLP", (Join((2, 4), divide_by_initial_world_size=initial),)))


@pytest.mark.must
def test_early_step(check: Check) -> None:
    """The last layer is stepped before the backward of the first layer is over, and so before its all-reduce begins.

    With a bucket for each parameter, the backward of the first layer can wait for that step.
    """
    check.on_ranks(2, _wait_for_early_step)


def _wait_for_early_step(rank: Rank, name: str) -> None:
    implementation = implementation_of(name)
    model = MLP().to(rank.device)
    wrapped = implementation.wrap_ddp(model, **A_BUCKET_EACH)
    implementation.attach(model, [(torch.optim.SGD, model.parameters(), {"lr": 0.01}, True)])
    stepped = threading.Event()
    for optimizer in implementation.optimizers(model):
        if any(param is model[4].weight for group in optimizer.param_groups for param in group["params"]):
            optimizer.register_step_post_hook(lambda *_: stepped.set())
    features = torch.randn(8, 4, device=rank.device)
    for _ in range(2):  # the first backward may go without: DDP has yet to learn the order of gradients
        implementation.backward(wrapped(features).sum(), model)
    waits: list[bool] = []

    def wait_in_backward(_: nn.Module, __: object, output: Tensor) -> None:
        output.register_hook(lambda _: waits.append(stepped.wait(5)))

    model[0].register_forward_hook(wait_in_backward)
    stepped.clear()
    implementation.backward(wrapped(features).sum(), model)
    assert waits == [True], "the last layer was not stepped while the first layer's backward waited for it for 5 s"


def _wrapped(
    options: dict[str, Any],
    model: str,
    events: tuple[Event, ...],
    *,
    assignments: tuple[Assignment, ...] = (MOMENTUM,),
    shared: tuple[tuple[str, str], ...] = (),
) -> Plan:
    return Plan(model, assignments, events, before=(WrapDDP(options),), shared=shared, ranks=ranks(2))
