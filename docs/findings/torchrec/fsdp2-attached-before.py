"""fsdp/attached_before (MUST): torchrec diverges in case AdamW-whole.

Attached before `fully_shard`, through the implementation's own call: as an optimizer built afterwards.

Observed: rank 0: parameter '0.weight' differs from the standard loop after event 2, Backward(): largest difference
0.0104
"""

import importlib.util
import tempfile
from itertools import count
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import fsdp


def file_of(name):
    package = importlib.util.find_spec("torchrec")
    spec = importlib.util.spec_from_file_location(name, Path(package.origin).parent / "optim" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    file_of("apply_optimizer_in_backward").apply_optimizer_in_backward(optimizer_class, params, optimizer_kwargs)


def standard_loop(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    fsdp.fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    model(next(batches)).square().mean().backward()
    optimizer.step()
    return {name: param.to_local() for name, param in model.named_parameters()}


def in_backward(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    apply(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    fsdp.fully_shard(model)
    model(next(batches)).square().mean().backward()
    return {name: param.to_local() for name, param in model.named_parameters()}


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
