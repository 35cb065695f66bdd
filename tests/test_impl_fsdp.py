"""Under `fully_shard` (FSDP2) and `wrap_fsdp` (FSDP1): what the chapter fsdp does not show, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import DTensor

import inbackward
from impl_support import ADAM, assert_trains_alike, attach, attached, batch, make, on_ranks, plain

MIXED = {"mp_policy": fsdp.MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)}
OFFLOAD = {"offload_policy": fsdp.CPUOffloadPolicy(pin_memory=False)}
ON_CPU: dict[str, Any] = {"device_id": torch.device("cpu")}
BY_LAYER: dict[str, Any] = {"auto_wrap_policy": ModuleWrapPolicy([nn.Linear])}


def sharded(model: nn.Module, fully_shard: Any, *, by_layer: bool = True, **options: Any) -> nn.Module:
    options = {"mesh": init_device_mesh("cpu", (torch.distributed.get_world_size(),)), **options}
    for layer in model.children() if by_layer else ():
        fully_shard(layer, **options)
    fully_shard(model, **options)
    return model


def accumulating(model: Any, step: int, rank: int) -> None:
    model.set_requires_gradient_sync(False)
    plain(model, step + 10, rank)
    model.set_requires_gradient_sync(True)
    plain(model, step, rank)


@pytest.mark.parametrize(
    "options", [{"by_layer": False}, {}, MIXED, OFFLOAD], ids=["whole", "by layer", "mixed precision", "offload"]
)
@pytest.mark.parametrize("attached_first", [True, False], ids=["attached first", "sharded first"])
@on_ranks(2)
def test_shards_train_as_those_of_an_optimizer_built_later(
    rank: int, options: dict[str, Any], attached_first: bool
) -> None:
    """The chapter fsdp lets offload and optimizers attached before be refused. Hooks registered later see gradients."""
    standard = sharded(make(), fsdp.fully_shard, **options)
    if attached_first:
        ours = sharded(attached(), inbackward.fully_shard, **options)
    else:
        ours = sharded(make(), fsdp.fully_shard, **options)
        attach(ours)
    seen: list[torch.Tensor | None] = []
    for param in ours.parameters():
        param.register_post_accumulate_grad_hook(lambda param: seen.append(param.grad))
    assert_trains_alike(ours, standard, torch.optim.Adam(standard.parameters(), **ADAM), accumulating, rank)
    assert len(seen) == 4 * len(list(ours.parameters()))
    assert all(grad is not None for grad in seen)


@on_ranks(2)
def test_one_gradient_of_a_shard_is_there_at_a_time(rank: int) -> None:
    model = sharded(make(), fsdp.fully_shard)
    attach(model)
    live = []
    for optimizer in inbackward.get_in_backward_optimizers(model):
        optimizer.register_step_pre_hook(
            lambda *_: live.append(sum(param.grad is not None for param in model.parameters()))
        )
    plain(model, 0, rank)
    assert live == [1] * len(list(model.parameters()))


@on_ranks(2)
def test_state_of_unsharded_parameters_is_refused_before_sharding() -> None:
    model = attached(torch.optim.Adagrad, lr=0.1)
    with pytest.raises(ValueError, match="Attach optimizers after sharding"):
        sharded(model, inbackward.fully_shard, by_layer=False)
    assert not any(isinstance(param, DTensor) for param in model.parameters())


def within_no_sync(model: Any, step: int, rank: int) -> None:
    with model.no_sync():
        plain(model, step + 10, rank)
    plain(model, step, rank)


@pytest.mark.parametrize("options", [{}, BY_LAYER], ids=["whole", "by layer"])
@pytest.mark.parametrize("attached_first", [True, False], ids=["attached first", "wrapped first"])
@on_ranks(2)
def test_fsdp1_trains_as_with_an_optimizer_built_later(
    rank: int, options: dict[str, Any], attached_first: bool
) -> None:
    """Also where FSDP1 has looked for optimizers before the first forward, as `state_dict()` has it do."""
    standard = FullyShardedDataParallel(make(), use_orig_params=True, **ON_CPU, **options)
    ours = inbackward.wrap_fsdp(attached() if attached_first else make(), **ON_CPU, **options)
    if not attached_first:
        attach(ours)
    ours.state_dict()
    assert_trains_alike(ours, standard, torch.optim.Adam(standard.parameters(), **ADAM), within_no_sync, rank)
    assert not any(hasattr(param, "_in_backward_optimizers") for param in ours.parameters())


@on_ranks(2)
def test_flat_parameters_and_what_torch_has_wrapped_are_refused() -> None:
    with pytest.raises(ValueError, match=r"use_orig_params=False.*inbackward\.fully_shard"):
        inbackward.wrap_fsdp(make(), use_orig_params=False, **ON_CPU)
    for use_orig_params in (True, False):
        wrapped = FullyShardedDataParallel(make(), use_orig_params=use_orig_params, **ON_CPU)
        with pytest.raises(ValueError, match=r"inbackward\.wrap_fsdp"):
            attach(wrapped)


@on_ranks(2)
def test_a_parameter_saved_between_forward_and_backward_holds_no_optimizer(rank: int) -> None:
    wrapped = inbackward.wrap_fsdp(make(), **ON_CPU)
    loss = wrapped(batch(0, rank)).sum()
    file = io.BytesIO()
    torch.save(next(wrapped.parameters()), file)
    file.seek(0)
    torch.load(file, weights_only=True)
    loss.backward()


@on_ranks(2)
def test_without_an_optimizer_wrap_fsdp_leaves_gradients_as_fsdp1_does(rank: int) -> None:
    ours = inbackward.wrap_fsdp(make(), **ON_CPU)
    standard = FullyShardedDataParallel(make(), use_orig_params=True, **ON_CPU)
    for run in (plain, within_no_sync):
        for model in (ours, standard):
            run(model, 0, rank)
        for mine, expected in zip(ours.parameters(), standard.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, expected.grad, rtol=0, atol=0)
