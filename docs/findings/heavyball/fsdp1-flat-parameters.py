"""fsdp/flat_parameters (MUST): heavyball fails in case after.

FSDP1 with `use_orig_params=False`, where flat parameters take the place of all others.

Observed: rank 0: an accident, not a refusal: event 2, Backward() raises AssertionError: All sharded parameters that
received a gradient in the post-backward should use `_saved_grad_shard`
"""

import tempfile
from itertools import count

import heavyball.utils
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import fsdp


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    heavyball.utils.compile_mode = None
    return optimizer_class(params, **optimizer_kwargs)


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    heavyball.utils.compile_mode = None
    heavyball.utils.fused_hook(params, optimizer_class, **optimizer_kwargs)


def standard_loop(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = fsdp.FullyShardedDataParallel(model, use_orig_params=False, device_id=torch.device("cpu"))
    optimizer = standard_optimizer(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    wrapped(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = fsdp.FullyShardedDataParallel(model, use_orig_params=False, device_id=torch.device("cpu"))
    apply(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    wrapped(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", world_size=2, rank=rank)
    expected = standard_loop(rank)
    try:
        actual = in_backward(rank)
    except (RuntimeError, TypeError, ValueError) as error:
        print(f"refused, which passes as well: {type(error).__name__}: {error}")
    else:
        for name, value in expected.items():
            torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(main, (folder,), 2, start_method="forkserver")
