"""ddp/equality (MUST): torchtune fails in case before-1.

Attached before or after wrapping, or even after the first forward, every rank trains as under DDP.

Observed: rank 0: 0.weight.grad is left over after event 2, Backward(); expected None
"""

import tempfile
import weakref
from datetime import timedelta
from itertools import count

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from torchtune.training import register_optim_in_bwd_hooks


attached = weakref.WeakKeyDictionary()


def attach(module, assignments):
    own = {}
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        for param in params:
            own[param] = optimizer_class([param], **optimizer_kwargs)
    modules = [part for part in module.modules() if own.keys() <= set(part.parameters())]
    smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
    register_optim_in_bwd_hooks(model=smallest, optim_dict=own)
    attached.update(dict.fromkeys(own.values()))


class MLP(nn.Sequential):
    """Weights and biases, three layers."""

    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def standard_loop(rank):
    torch.manual_seed(0)
    model = MLP()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    wrapped = DistributedDataParallel(model)
    wrapped(next(batches)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return {name: param.grad for name, param in model.named_parameters()}


def in_backward(rank):
    torch.manual_seed(0)
    model = MLP()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    attach(model, [(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1}, True)])
    wrapped = DistributedDataParallel(model)
    wrapped(next(batches)).square().mean().backward()
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
