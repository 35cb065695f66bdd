"""fsdp/flat_parameters (MUST): prodigy-plus fails in case after.

FSDP1 with `use_orig_params=False`, where flat parameters take the place of all others.

Observed: rank 0: an accident, not a refusal: event 2, Backward() raises AssertionError: All sharded parameters that
received a gradient in the post-backward should use `_saved_grad_shard`
"""

import tempfile
from functools import partial
from itertools import count

import torch
import torch.distributed as dist
from prodigyplus import ProdigyPlusScheduleFree
from torch import nn
from torch.distributed import fsdp


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
    wrapped = fsdp.FullyShardedDataParallel(model, use_orig_params=False, device_id=torch.device("cpu"))
    optimizer = ProdigyPlusScheduleFree(model.parameters(), d0=1e-05, stochastic_rounding=False, use_schedulefree=False)
    wrapped(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = fsdp.FullyShardedDataParallel(model, use_orig_params=False, device_id=torch.device("cpu"))
    apply(
        ProdigyPlusScheduleFree,
        model.parameters(),
        {"d0": 1e-05, "stochastic_rounding": False, "use_schedulefree": False},
    )
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
            atol = 1e-05 * value.abs().max().item()
            torch.testing.assert_close(
                actual[name], value, rtol=0, atol=atol, equal_nan=True, msg=f"{name}: {{}}".format
            )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(main, (folder,), 2, start_method="forkserver")
