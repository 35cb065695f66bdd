"""ddp/no_sync (MUST): torchtune diverges in case 2-views.

Gradients accumulated under `no_sync()` are stepped with the next synchronised backward, once.

Observed: rank 0: parameter '0.weight' differs from the standard loop after event 2, Backward(): largest difference
0.00192
"""

import tempfile
from itertools import count

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchtune.training import register_optim_in_bwd_hooks


def attach(module, assignments):
    own = {}
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        for param in params:
            own[param] = optimizer_class([param], **optimizer_kwargs)
    modules = [part for part in module.modules() if own.keys() <= set(part.parameters())]
    smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
    register_optim_in_bwd_hooks(model=smallest, optim_dict=own)


def standard_loop(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    wrapped(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
    attach(model, [(torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}, True)])
    wrapped(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", world_size=2, rank=rank)
    expected, actual = (standard_loop(rank), in_backward(rank))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(main, (folder,), 2, start_method="forkserver")
