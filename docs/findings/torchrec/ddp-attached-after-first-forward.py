"""ddp/equality (MUST): torchrec fails in case first-forward-1.

Attached before or after wrapping, or even after the first forward, every rank trains as under DDP.

Observed: rank 0: 0.weight.grad is left over after event 3, BackwardThrough(); expected None
"""

import importlib.util
import tempfile
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close


@cache
def file_of(name):
    package = importlib.util.find_spec("torchrec")
    spec = importlib.util.spec_from_file_location(name, Path(package.origin).parent / "optim" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    file_of("apply_optimizer_in_backward").apply_optimizer_in_backward(optimizer_class, params, optimizer_kwargs)


class MLP(nn.Sequential):
    """Weights and biases, three layers."""

    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def standard_loop(rank):
    torch.manual_seed(0)
    model = MLP()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    wrapped = DistributedDataParallel(model)
    loss_0 = wrapped(next(batches)).square().mean()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    loss_0.backward()
    optimizer.step()
    optimizer.zero_grad()
    return {name: param.grad for name, param in model.named_parameters()}


def in_backward(rank):
    torch.manual_seed(0)
    model = MLP()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    wrapped = DistributedDataParallel(model)
    loss_0 = wrapped(next(batches)).square().mean()
    apply(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    loss_0.backward()
    return {name: param.grad for name, param in model.named_parameters()}


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", timedelta(seconds=20), 1, rank)
    expected = standard_loop(rank)
    actual = in_backward(rank)
    for name, value in expected.items():
        assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{name}: {text}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(main, (folder,), nprocs=1)
