"""The behaviour of torch, past its public names, that `inbackward._engine` relies on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.checkpoint import checkpoint

from inbackward import _engine


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2),
        torch.ones(0),
        torch.ones(()),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last),
        torch.ones(2).double(),
        nn.Parameter(torch.ones(2)),
        nn.LSTM(2, 2).weight_ih_l0,
        TwoTensor(torch.ones(2), torch.ones(2)),
    ],
    ids=lambda tensor: f"{type(tensor).__name__}-{tensor.dtype}-{tuple(tensor.shape)}",
)
def test_an_alias_is_noticed_as_long_as_it_lives(tensor: torch.Tensor) -> None:
    assert not _engine.shares_memory(tensor)
    alias = tensor.detach()
    assert _engine.shares_memory(tensor)
    del alias
    assert not _engine.shares_memory(tensor)


def test_where_torch_cannot_tell_memory_counts_as_shared() -> None:
    assert _engine.shares_memory(torch.eye(2).to_sparse())


def test_a_pass_is_one_object_and_ends() -> None:
    seen = []
    x = torch.ones(2, requires_grad=True)
    x.register_hook(lambda _: seen.append(_engine.current_pass()))
    y = x * 2
    y.register_hook(lambda _: seen.append(_engine.current_pass()))
    for _ in range(2):
        y.sum().backward(retain_graph=True)
    assert not _engine.in_backward()
    first, again, second, _ = seen
    assert first is again
    assert first is not second
    assert not first.running
    assert not second.running


def test_a_nested_pass_becomes_part_of_the_outer_when_it_ends() -> None:
    seen: list[_engine.Pass] = []
    calls: list[_engine.Pass] = []

    def record(_: torch.Tensor) -> None:
        seen.append(_engine.current_pass())
        seen[-1].at_end[calls.append] = None

    def forward(x: torch.Tensor) -> torch.Tensor:
        x.register_hook(record)
        return x * 2

    def look(_: torch.Tensor) -> None:
        nested = seen[0]
        assert nested is not _engine.current_pass()
        assert nested.outermost is _engine.current_pass()
        assert nested.running
        assert calls == []

    x = torch.ones(2, requires_grad=True) * 1
    x.register_hook(look)
    output: Any = checkpoint(forward, x, use_reentrant=True)
    # The hook of the first run is called in the outer pass, the one of the recomputation in the nested.
    output.sum().backward()
    assert calls == [seen[0].outermost]
    assert not seen[0].running


def test_a_pass_that_raises_ends_too() -> None:
    seen = []

    def boom(_: torch.Tensor) -> None:
        seen.append(_engine.current_pass())
        seen[0].at_end[pytest.fail] = None  # type: ignore[index]
        raise ZeroDivisionError

    x = torch.ones(2, requires_grad=True)
    x.register_hook(boom)
    with pytest.raises(ZeroDivisionError) as kept:
        x.sum().backward()
    assert not seen[0].running
    del kept
