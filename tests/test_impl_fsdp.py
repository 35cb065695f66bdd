"""With shards, the reference implementation gives what the standard loop gives with an optimizer built afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import DeviceMesh

import inbackward
from impl_ranks import Ranks, shared

ADAM = {"lr": 0.01, "weight_decay": 0.1}


@pytest.fixture
def ranks() -> Ranks:
    return shared()


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))


def batch(step: int, rank: int) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(100 * step + rank))


def plain(model: Any, step: int, rank: int) -> None:
    model(batch(step, rank)).pow(2).sum().backward()


def accumulating(model: Any, step: int, rank: int) -> None:
    model.set_requires_gradient_sync(False)
    plain(model, step + 10, rank)
    model.set_requires_gradient_sync(True)
    plain(model, step, rank)


def whole(model: nn.Sequential, shard: Any, **options: Any) -> nn.Module:
    shard(model, **options)
    return model


def by_layer(model: nn.Sequential, shard: Any, **options: Any) -> nn.Module:
    for layer in model:
        if isinstance(layer, nn.Linear):
            shard(layer, **options)
    shard(model, **options)
    return model


def assert_equal(ours: Any, standard: Any, optimizer: Any) -> None:
    for mine, expected in zip(ours.parameters(), standard.parameters(), strict=True):
        assert torch.equal(mine.to_local(), expected.to_local())
        assert mine.grad is None
        (listed,) = inbackward.optimizers_of(mine)
        for key, value in optimizer.state[expected].items():
            kept = listed.state[mine][key]
            assert torch.equal(getattr(kept, "_local_tensor", kept), getattr(value, "_local_tensor", value)), key


def equals_fully_shard(
    group: Any,
    arrange: Any,
    options: dict[str, Any],
    run: Any = plain,
    *,
    before: bool = False,
    kind: Any = torch.optim.Adam,
) -> None:
    mesh = DeviceMesh.from_group(group, "cpu")
    standard, ours = make(), make()
    arrange(standard, fsdp.fully_shard, mesh=mesh, **options)
    optimizer = kind(standard.parameters(), **ADAM)
    if before:
        inbackward.apply_optimizer_in_backward(kind, ours.parameters(), ADAM)
        arrange(ours, inbackward.fully_shard, mesh=mesh, **options)
    else:
        arrange(ours, fsdp.fully_shard, mesh=mesh, **options)
        inbackward.apply_optimizer_in_backward(kind, ours.parameters(), ADAM)
    seen: list[torch.Tensor] = []
    for param in ours.parameters():
        param.register_post_accumulate_grad_hook(lambda param: seen.append(param.grad))
    for step in range(4):
        run(standard, step, group.rank())
        optimizer.step()
        optimizer.zero_grad()
        run(ours, step, group.rank())
        assert all(param.grad is None for param in ours.parameters())
    assert len(seen) == 4 * 6
    assert all(grad is not None for grad in seen)
    assert_equal(ours, standard, optimizer)


MIXED = {"mp_policy": fsdp.MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)}
OFFLOAD = {"offload_policy": fsdp.CPUOffloadPolicy(pin_memory=False)}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("run", [plain, accumulating])
@pytest.mark.parametrize(
    ("arrange", "options"),
    [(whole, {}), (by_layer, {}), (by_layer, MIXED), (by_layer, OFFLOAD)],
    ids=["whole", "by layer", "mixed", "offload"],
)
def test_fully_shard(ranks: Ranks, arrange: Any, options: Any, run: Any, before: bool) -> None:
    ranks.run(equals_fully_shard, 2, arrange, options, run, before=before)


def one_at_a_time(group: Any) -> None:
    """Each shard is stepped before the gradient of the layer below is there."""
    model = make()
    by_layer(model, fsdp.fully_shard, mesh=DeviceMesh.from_group(group, "cpu"))
    inbackward.apply_optimizer_in_backward(torch.optim.Adam, model.parameters(), ADAM)
    live = []
    for param in model.parameters():
        optimizer = inbackward.optimizers_of(param)[0]
        optimizer.register_step_pre_hook(lambda *_: live.append(sum(p.grad is not None for p in model.parameters())))
    plain(model, 0, group.rank())
    assert live == [1] * 6


def test_shards_step_one_at_a_time(ranks: Ranks) -> None:
    ranks.run(one_at_a_time)


def state_from_before(group: Any) -> None:
    model = make()
    inbackward.apply_optimizer_in_backward(torch.optim.Adagrad, model.parameters(), {})
    with pytest.raises(ValueError, match="Attach optimizers after sharding"):
        inbackward.fully_shard(model, mesh=DeviceMesh.from_group(group, "cpu"))
    assert not any(isinstance(param, torch.distributed.tensor.DTensor) for param in model.parameters())


def test_state_of_unsharded_parameters_is_refused(ranks: Ranks) -> None:
    ranks.run(state_from_before)
