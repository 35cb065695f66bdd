"""ddp/equality (MUST): torch diverges in case first-forward-2.

Attached before or after wrapping, or even after the first forward, every rank trains as under DDP.

Observed: rank 0: parameter '0.weight' differs from the standard loop after event 3, BackwardThrough(): largest
difference 0.02
"""

import tempfile
from itertools import count

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward
from torch.nn.parallel import DistributedDataParallel


def standard_loop(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = DistributedDataParallel(model)
    loss_0 = wrapped(next(batches)).square().mean()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    loss_0.backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = DistributedDataParallel(model)
    loss_0 = wrapped(next(batches)).square().mean()
    _apply_optimizer_in_backward(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    loss_0.backward()
    return dict(model.named_parameters())


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", world_size=2, rank=rank)
    expected, actual = (standard_loop(rank), in_backward(rank))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(main, (folder,), 2, start_method="forkserver")
