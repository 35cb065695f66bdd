"""Under FSDP1, the reference implementation gives what the standard loop gives, or refuses."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

import inbackward
from impl_ranks import Ranks, shared
from test_impl_fsdp import ADAM, batch, make, plain

BY_LAYER = {"auto_wrap_policy": ModuleWrapPolicy([nn.Linear])}


@pytest.fixture
def ranks() -> Ranks:
    return shared()


def within_no_sync(model: Any, step: int, rank: int) -> None:
    with model.no_sync():
        plain(model, step + 10, rank)
    plain(model, step, rank)


def equals_fsdp(group: Any, options: dict[str, Any], run: Any, *, before: bool) -> None:
    options = {"process_group": group, "device_id": torch.device("cpu"), **options}
    ours, module = make(), make()
    standard = FullyShardedDataParallel(module, use_orig_params=True, **options)
    optimizer: Any = torch.optim.Adam(standard.parameters(), lr=0.01, weight_decay=0.1)
    if before:
        inbackward.apply_optimizer_in_backward(torch.optim.Adam, ours.parameters(), ADAM)
    wrapped = inbackward.wrap_fsdp(ours, **options)
    if not before:
        inbackward.apply_optimizer_in_backward(torch.optim.Adam, wrapped.parameters(), ADAM)
    wrapped.state_dict()  # has FSDP look for optimizers in backward before the first forward
    for step in range(4):
        run(standard, step, group.rank())
        optimizer.step()
        optimizer.zero_grad()
        run(wrapped, step, group.rank())
        assert all(param.grad is None for param in wrapped.parameters())
        assert not any(hasattr(param, "_in_backward_optimizers") for param in wrapped.parameters())
    for mine, expected in zip(wrapped.parameters(), standard.parameters(), strict=True):
        assert torch.equal(mine, expected)
        for key, value in optimizer.state[expected].items():
            assert torch.equal(inbackward.optimizers_of(mine)[0].state[mine][key], value)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("run", [plain, within_no_sync])
@pytest.mark.parametrize("options", [{}, BY_LAYER], ids=["whole", "by layer"])
def test_original_parameters(ranks: Ranks, options: Any, run: Any, before: bool) -> None:
    ranks.run(equals_fsdp, 2, options, run, before=before)


def refused(group: Any) -> None:
    options = {"process_group": group, "device_id": torch.device("cpu")}
    with pytest.raises(ValueError, match="use_orig_params=False"):
        inbackward.wrap_fsdp(make(), use_orig_params=False, **options)
    for use_orig_params in (True, False):
        torchs: Any = FullyShardedDataParallel(make(), use_orig_params=use_orig_params, **options)
        with pytest.raises(ValueError, match=r"inbackward\.wrap_fsdp"):
            inbackward.apply_optimizer_in_backward(torch.optim.Adam, torchs.parameters(), ADAM)


def test_flat_parameters_and_torchs_own_call_are_refused(ranks: Ranks) -> None:
    ranks.run(refused)


def saved_between(group: Any) -> None:
    """A parameter saved between forward and backward takes nothing along."""
    wrapped = inbackward.wrap_fsdp(make(), process_group=group, device_id=torch.device("cpu"))
    loss = wrapped(batch(0, group.rank())).sum()
    file = io.BytesIO()
    torch.save(next(wrapped.parameters()), file)
    file.seek(0)
    torch.load(file, weights_only=True)
    loss.backward()


def test_a_saved_parameter_holds_no_optimizer(ranks: Ranks) -> None:
    ranks.run(saved_between)


def ordinary(group: Any) -> None:
    """Nothing is attached: gradients are those of plain FSDP, and stay."""
    options: dict[str, Any] = {"process_group": group, "device_id": torch.device("cpu")}
    ours = inbackward.wrap_fsdp(make(), **options)
    standard = FullyShardedDataParallel(make(), use_orig_params=True, **options)
    for run in (plain, within_no_sync):
        for model in (ours, standard):
            run(model, 0, group.rank())
        for mine, expected in zip(ours.parameters(), standard.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, expected.grad, rtol=0, atol=0)


def test_ordinary_parameters_stay_ordinary(ranks: Ranks) -> None:
    ranks.run(ordinary)
