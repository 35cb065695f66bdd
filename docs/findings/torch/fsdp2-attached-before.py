"""fsdp/attached_before (MUST): torch diverges in case Adagrad-whole.

Attached before `fully_shard`, through the implementation's own call: as an optimizer built afterwards.

Observed: rank 0: optimizer state of '0.weight' differs from the standard loop after event 1, FullyShard(): 0 optimizers
hold a state for it, expected 1
"""

import sys
import tempfile
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import fsdp
from torch.distributed.optim import _apply_optimizer_in_backward, _get_in_backward_optimizers
from torch.testing import assert_close


class MLP(nn.Sequential):
    """Weights and biases, three layers."""

    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def standard_loop(rank):
    torch.manual_seed(0)
    model = MLP()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
    mesh = dist.init_device_mesh("cpu", (2,), mesh_dim_names=("data",))
    fsdp.fully_shard(model, mesh=mesh["data"])
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
    return {
        name: [optimizer.state[param] for optimizer in [optimizer] if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


def in_backward(rank):
    torch.manual_seed(0)
    model = MLP()
    _apply_optimizer_in_backward(torch.optim.Adagrad, model.parameters(), {"lr": 0.05})
    mesh = dist.init_device_mesh("cpu", (2,), mesh_dim_names=("data",))
    fsdp.fully_shard(model, mesh=mesh["data"])
    return {
        name: [optimizer.state[param] for optimizer in _get_in_backward_optimizers(model) if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", timedelta(seconds=20), 2, rank)
    expected = standard_loop(rank)
    try:
        actual = in_backward(rank)
    except (RuntimeError, TypeError, ValueError) as error:
        print(f"refused, which passes as well: {type(error).__name__}: {error}")
        sys.exit()
    for name, value in expected.items():
        assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{name}: {text}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(main, (folder,), nprocs=2)
