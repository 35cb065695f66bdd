"""ddp/plain_ddp (MUST): torchtitan diverges in case 2-before.

Wrapped in plain DDP, without a word to the implementation, ranks train as ever, or it refuses.

Observed: rank 0: parameter '0.weight' differs from the standard loop after event 2, Backward(): largest difference 0.2
"""

import tempfile
import weakref
from itertools import count

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW
from torchtitan.components.optimizer import OptimizersInBackwardContainer


def part_of(module, given):
    own = {part: {id(param): param.requires_grad for param in part.parameters()} for part in module.modules()}
    fitting = [part for part in own if set(filter(own[part].get, own[part])) <= set(given) <= own[part].keys()]
    return min(fitting, key=lambda part: len(own[part]))


containers = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        part = part_of(module, list(map(id, params)))
        containers[part] = OptimizersInBackwardContainer([part], optimizer_class, optimizer_kwargs)
        containers[part].model_parts = weakref.WeakSet([part])


def standard_loop(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    optimizer = AdamW(model.parameters(), lr=0.1)
    wrapped = DistributedDataParallel(model)
    wrapped(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    attach(model, [(AdamW, model.parameters(), {"lr": 0.1}, True)])
    wrapped = DistributedDataParallel(model)
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
