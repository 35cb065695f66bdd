"""What the tests of the reference implementation share: a model, batches, training by both loops, and ranks."""

from __future__ import annotations

import atexit
import functools
import importlib
import inspect
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import inbackward
from inbackward_conformance.ranks.job import Job, Rank
from inbackward_conformance.ranks.pool import Pool

if TYPE_CHECKING:
    from torch.optim import Optimizer

ADAM: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1}
SECONDS = 120.0

Run = Callable[[Any, int, int], None]
"""A forward and a backward of a model, given the number of the step and the rank."""


class Net(nn.Module):
    """Layers of odd sizes, so that shards differ in size, and one that a forward may leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 5), nn.LayerNorm(5)
        self.spare, self.last = nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, x: torch.Tensor, *, spare: bool = True) -> Any:
        hidden = self.norm(self.first(x).tanh())
        return self.last(self.spare(hidden) if spare else hidden)


def make() -> Net:
    """Returns a model; all of them have the same values."""
    torch.manual_seed(0)
    return Net()


def attach(model: nn.Module, optimizer_class: type[Optimizer] = torch.optim.Adam, **options: Any) -> None:
    inbackward.apply_optimizer_in_backward(optimizer_class, model.parameters(), options or ADAM)


def attached(optimizer_class: type[Optimizer] = torch.optim.Adam, **options: Any) -> Net:
    model = make()
    attach(model, optimizer_class, **options)
    return model


def batch(step: int = 0, rank: int = 0) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(100 * step + rank))


def plain(model: Any, step: int = 0, rank: int = 0) -> None:
    model(batch(step, rank)).pow(2).sum().backward()


def assert_trains_alike(
    ours: nn.Module, standard: nn.Module, optimizer: Optimizer, run: Run = plain, rank: int = 0
) -> None:
    """Trains both for four steps, `ours` inside backward; parameters and states are the same to the bit."""
    for step in range(4):
        run(standard, step, rank)
        optimizer.step()
        optimizer.zero_grad()
        run(ours, step, rank)
        assert [name for name, param in ours.named_parameters() if param.grad is not None] == []
    for (name, mine), expected in zip(ours.named_parameters(), standard.parameters(), strict=True):
        assert torch.equal(_local(mine), _local(expected)), name
        (listed,) = inbackward.optimizers_of(mine)
        states = [one.state.get(param, {}) for one, param in ((listed, mine), (optimizer, expected))]
        found, state = ({key: _local(value) for key, value in each.items()} for each in states)
        torch.testing.assert_close(found, state, rtol=0, atol=0, msg=name)


def assert_untouched(model: nn.Module) -> None:
    """Demands that no parameter of a model of `make`, and no state, has been stepped."""
    for param, expected in zip(model.parameters(), make().parameters(), strict=True):
        assert torch.equal(param, expected)
    assert not any(optimizer.state for optimizer in inbackward.get_in_backward_optimizers(model))


def on_ranks(*sizes: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Has the body of a test run on groups of so many ranks; it is given its rank if it has an argument `rank`."""

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def test(ranks: int, **arguments: Any) -> None:
            job = Job(_run_body, (body.__module__, body.__name__, arguments), ranks, "cpu", SECONDS)
            errors = [answer.value or answer.finding.detail for answer in _pool().run(job)]
            assert not any(errors), "\n".join(f"rank {rank}: {error}" for rank, error in enumerate(errors))

        taken = [param for name, param in inspect.signature(body).parameters.items() if name != "rank"]
        ranks = inspect.Parameter("ranks", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        test.__signature__ = inspect.Signature([ranks, *taken])  # type: ignore[attr-defined]
        decorated: Callable[..., None] = pytest.mark.parametrize("ranks", sizes)(test)
        return decorated

    return decorate


@functools.cache
def _pool() -> Pool:
    """The ranks that all tests of a session use."""
    pool = Pool(at_once=2)
    atexit.register(pool.close)
    return pool


def _run_body(rank: Rank, module: str, name: str, arguments: dict[str, Any]) -> str:
    """Returns the traceback of what the body of a test raises."""
    body = getattr(importlib.import_module(module), name).__wrapped__
    if "rank" in inspect.signature(body).parameters:
        arguments["rank"] = rank.number
    try:
        body(**arguments)
    except BaseException:  # noqa: BLE001
        return traceback.format_exc()
    return ""


def _local(value: Any) -> Any:
    """Returns this rank's part of a sharded tensor, and any other value as it is."""
    return value.to_local() if hasattr(value, "to_local") else value
