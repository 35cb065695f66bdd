"""fsdp/attached_in_training (MUST): torch diverges in case FSDP2.

Attached after sharding and a first step of another, ordinary optimizer.

Observed: rank 0: parameter '0.weight' differs from the standard loop after event 3, Backward(): largest difference
0.0104
"""

import tempfile
from itertools import count

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import fsdp
from torch.distributed.optim import _apply_optimizer_in_backward


def standard_loop(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    fsdp.fully_shard(model)
    another = torch.optim.SGD(model.parameters(), lr=1.0)
    model(next(batches)).square().mean().backward()
    another.step()
    another.zero_grad()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    model(next(batches)).square().mean().backward()
    optimizer.step()
    return {name: param.to_local() for name, param in model.named_parameters()}


def in_backward(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    fsdp.fully_shard(model)
    another = torch.optim.SGD(model.parameters(), lr=1.0)
    model(next(batches)).square().mean().backward()
    another.step()
    another.zero_grad()
    _apply_optimizer_in_backward(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    model(next(batches)).square().mean().backward()
    return {name: param.to_local() for name, param in model.named_parameters()}


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", world_size=2, rank=rank)
    expected, actual = (standard_loop(rank), in_backward(rank))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(main, (folder,), 2, start_method="forkserver")
