"""tensor_parallel/averaged_by_hand (MUST): torch diverges in case alone.

Gradients that the user averages between backward and step are averaged when they are stepped, or it is refused.

Observed: rank 0: parameter '0.weight' differs from the standard loop after event 3, Backward(): largest difference 0.02
"""

import tempfile
from itertools import count

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import tensor as tensors
from torch.distributed.optim import _apply_optimizer_in_backward
from torch.distributed.tensor import parallel as tensor_parallel


def standard_loop(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    mesh = dist.init_device_mesh("cpu", (2, 1), mesh_dim_names=("data", "tensor"))
    styles = {
        "0": tensor_parallel.ColwiseParallel(output_layouts=tensors.Replicate()),
        "2": tensor_parallel.RowwiseParallel(input_layouts=tensors.Replicate()),
        "4": tensor_parallel.RowwiseParallel(input_layouts=tensors.Replicate()),
    }
    tensor_parallel.parallelize_module(model, mesh["tensor"], styles)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    model(next(batches)).square().mean().backward()
    for param in model.parameters():
        dist.all_reduce(
            param.grad.to_local() if hasattr(param.grad, "to_local") else param.grad, group=mesh["data"].get_group()
        )
        (param.grad.to_local() if hasattr(param.grad, "to_local") else param.grad).div_(mesh["data"].size())
    optimizer.step()
    return {name: param.to_local() if hasattr(param, "to_local") else param for name, param in model.named_parameters()}


def in_backward(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    mesh = dist.init_device_mesh("cpu", (2, 1), mesh_dim_names=("data", "tensor"))
    styles = {
        "0": tensor_parallel.ColwiseParallel(output_layouts=tensors.Replicate()),
        "2": tensor_parallel.RowwiseParallel(input_layouts=tensors.Replicate()),
        "4": tensor_parallel.RowwiseParallel(input_layouts=tensors.Replicate()),
    }
    tensor_parallel.parallelize_module(model, mesh["tensor"], styles)
    _apply_optimizer_in_backward(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    model(next(batches)).square().mean().backward()
    return {name: param.to_local() if hasattr(param, "to_local") else param for name, param in model.named_parameters()}


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
