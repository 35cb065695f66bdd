"""hook_then_optimizer/unused_parameters (MUST): torch diverges in case all-ranks-views.

Unused on one rank a parameter is stepped on all; unused on all, weight decay and momentum leave it alone.

Observed: rank 0: parameter 'left.weight' differs from the standard loop after event 4, Backward(skip=('left',)):
largest difference 0.00753
"""

import tempfile
from itertools import count

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks import optimizer_overlap_hooks as overlap
from torch.distributed.optim.utils import functional_optim_map
from torch.nn.parallel import DistributedDataParallel


class Branches(nn.Module):
    """A trunk and branches that a forward may skip."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(4, 5)
        self.left = nn.Linear(5, 3)
        self.right = nn.Linear(5, 3)

    def forward(self, features, skip=()):
        hidden = torch.tanh(self.trunk(features))
        taken = [branch for name, branch in (("left", self.left), ("right", self.right)) if name not in skip]
        return torch.stack([branch(hidden) for branch in taken]).sum(0)


def standard_loop(rank):
    torch.manual_seed(0)
    model = Branches()
    batches = (torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = DistributedDataParallel(model, find_unused_parameters=True, gradient_as_bucket_view=True)
    wrapped.register_comm_hook(None, default_hooks.allreduce_hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    wrapped(next(batches)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    wrapped(next(batches), skip=("left",)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward(rank):
    torch.manual_seed(0)
    model = Branches()
    batches = (torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = DistributedDataParallel(model, find_unused_parameters=True, gradient_as_bucket_view=True)
    functional = functional_optim_map[torch.optim.SGD](
        list(model.parameters()), lr=0.05, momentum=0.9, weight_decay=0.1
    )
    wrapped.register_comm_hook(
        None, overlap._hook_then_optimizer(default_hooks.allreduce_hook, overlap._OptimizerHookState(functional, None))
    )
    wrapped(next(batches)).square().mean().backward()
    for param in model.parameters():
        param.grad = None
    wrapped(next(batches), skip=("left",)).square().mean().backward()
    for param in model.parameters():
        param.grad = None
    return dict(model.named_parameters())


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", world_size=2, rank=rank)
    expected, actual = (standard_loop(rank), in_backward(rank))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(main, (folder,), 2, start_method="forkserver")
