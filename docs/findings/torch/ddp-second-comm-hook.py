"""ddp/comm_hook (MUST): torch fails in case before.

A communication hook of the user's, registered before or after attachment, is used, or refused.

Observed: rank 0: an accident, not a refusal: event 3, Backward() raises RuntimeError: register_comm_hook or
register_builtin_comm_hook can only be called once.
"""

import tempfile
from itertools import count

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.optim import _apply_optimizer_in_backward
from torch.nn.parallel import DistributedDataParallel


def standard_loop(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = DistributedDataParallel(model)
    wrapped.register_comm_hook(None, default_hooks.fp16_compress_hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    wrapped(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = DistributedDataParallel(model)
    wrapped.register_comm_hook(None, default_hooks.fp16_compress_hook)
    _apply_optimizer_in_backward(
        torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    )
    wrapped(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", world_size=2, rank=rank)
    expected = standard_loop(rank)
    try:
        actual = in_backward(rank)
    except (RuntimeError, TypeError, ValueError) as error:
        if "register_comm_hook or register_builtin_c" in str(error):
            raise
        print(f"refused, which passes as well: {type(error).__name__}: {error}")
    else:
        for name, value in expected.items():
            torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(main, (folder,), 2, start_method="forkserver")
