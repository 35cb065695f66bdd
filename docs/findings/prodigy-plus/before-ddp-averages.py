"""ddp/equality (MUST): prodigy-plus diverges in case before-2.

Attached before or after wrapping, or even after the first forward, every rank trains as under DDP.

Observed: rank 0: parameter '0.weight' differs from the standard loop after event 2, Backward(): largest difference
2e-05
"""

import tempfile
from functools import partial
from itertools import count

import torch
import torch.distributed as dist
from prodigyplus import ProdigyPlusScheduleFree
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def step_and_free(optimizer, number, index, param):
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    optimizer = ProdigyPlusScheduleFree(params, fused_back_pass=True, **optimizer_kwargs)
    for number, group in enumerate(optimizer.param_groups):
        for index, param in filter(lambda indexed: indexed[1].requires_grad, enumerate(group["params"])):
            param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


def standard_loop(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    optimizer = ProdigyPlusScheduleFree(model.parameters(), d0=1e-05, stochastic_rounding=False, use_schedulefree=False)
    wrapped = DistributedDataParallel(model)
    wrapped(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    apply(
        ProdigyPlusScheduleFree,
        model.parameters(),
        {"d0": 1e-05, "stochastic_rounding": False, "use_schedulefree": False},
    )
    wrapped = DistributedDataParallel(model)
    wrapped(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", world_size=2, rank=rank)
    expected, actual = (standard_loop(rank), in_backward(rank))
    for name, value in expected.items():
        atol = 1e-05 * value.abs().max().item()
        torch.testing.assert_close(actual[name], value, rtol=0, atol=atol, equal_nan=True, msg=f"{name}: {{}}".format)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(main, (folder,), 2, start_method="forkserver")
