"""Sharded states of the optimizers in backward, saved by two ranks and loaded by four."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import fsdp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as load_checkpoint
from torch.distributed.checkpoint.state_dict_saver import save as save_checkpoint
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

import inbackward
from impl_ranks import Ranks, shared
from test_impl_fsdp import ADAM, by_layer, make, plain


@pytest.fixture
def ranks() -> Ranks:
    return shared()


def attached(group: Any) -> Any:
    model = by_layer(make(), fsdp.fully_shard, mesh=DeviceMesh.from_group(group, "cpu"))
    inbackward.apply_optimizer_in_backward(torch.optim.Adam, model.parameters(), ADAM)
    return model


def save(group: Any, folder: Path) -> None:
    model = attached(group)
    for step in range(3):
        plain(model, step, group.rank())
    module, optimizers = get_state_dict(model, inbackward.get_in_backward_optimizers(model))
    save_checkpoint({"module": module, "optimizers": optimizers}, checkpoint_id=folder, process_group=group)
    everything = [full(model), [full_state(model)]]
    if group.rank() == 0:
        torch.save(everything, folder / "expected.pt")


def load(group: Any, folder: Path) -> None:
    model = attached(group)
    module, optimizers = get_state_dict(model, inbackward.get_in_backward_optimizers(model))
    state: dict[str, Any] = {"module": module, "optimizers": optimizers}
    load_checkpoint(state, checkpoint_id=folder, process_group=group)
    set_state_dict(
        model,
        inbackward.get_in_backward_optimizers(model),
        model_state_dict=state["module"],
        optim_state_dict=state["optimizers"],
    )
    expected = torch.load(folder / "expected.pt")
    torch.testing.assert_close([full(model), [full_state(model)]], expected, rtol=0, atol=0)


def full(model: Any) -> list[torch.Tensor]:
    return [param.detach().full_tensor() for param in model.parameters()]


def full_state(model: Any) -> list[dict[str, torch.Tensor]]:
    return [
        {
            key: value.full_tensor() if isinstance(value, DTensor) else value
            for key, value in optimizer.state[param].items()
        }
        for param in model.parameters()
        for optimizer in inbackward.optimizers_of(param)
    ]


def test_saved_by_two_ranks_and_loaded_by_four(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run(save, 2, tmp_path)
    ranks.run(load, 4, tmp_path)
