"""hook_then_optimizer/foreign_parameters (MUST): torch fails.

Parameters that the model does not have are rejected when they are registered, and training is as before.

Observed: rank 0: a parameter that the model does not have is accepted
"""

import tempfile
from datetime import timedelta
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks import optimizer_overlap_hooks as overlap
from torch.distributed.optim.utils import functional_optim_map
from torch.nn.parallel import DistributedDataParallel


def _on_rank(number, world_size, folder, body, *arguments):
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=20), world_size, number)
    body(SimpleNamespace(number=number, world_size=world_size, device="cpu"), *arguments)


def on_ranks(world_size, body, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world_size, folder, body, *arguments)
        torch.multiprocessing.start_processes(_on_rank, arguments, world_size, start_method="forkserver")


def _pair(rank, **options):
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(
            DistributedDataParallel(
                nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(rank.device),
                **options,
            )
        )
    return (models[0], models[1])


class NotOffered(NotImplementedError):
    """Raised by any call of an adapter when its implementation does not offer what is asked for."""


def _rejected(what, call):
    try:
        call()
    except NotOffered:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        assert str(error).strip(), f"{what} is rejected without a message"
        return
    raise AssertionError(f"{what} is accepted")


def _backward(rank, ddp):
    features = torch.linspace(-1, 1 + rank.number, 12, device=rank.device).reshape(3, 4)
    ddp(features).square().sum().backward()


def _trains_plainly(rank, ddp):
    before = [param.detach().clone() for param in ddp.parameters()]
    _backward(rank, ddp)
    for param, value in zip(ddp.parameters(), before, strict=True):
        assert torch.equal(param, value), "it is rejected, but backward steps parameters"
        assert param.grad is not None, "it is rejected, but gradients are gone after backward"


SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}


def _register(ddp, held=None, params=None):
    functional = functional_optim_map[torch.optim.SGD](held or list(ddp.parameters()), **SGD)
    ddp.register_comm_hook(
        None,
        overlap._hook_then_optimizer(default_hooks.allreduce_hook, overlap._OptimizerHookState(functional, params)),
    )


def _rejects_parameters(rank):
    ddp, other = _pair(rank)
    params = [*ddp.parameters(), next(iter(other.parameters()))]
    _rejected("a parameter that the model does not have", lambda: _register(ddp, params, params))
    _trains_plainly(rank, ddp)


def foreign_parameters():
    on_ranks(1, _rejects_parameters)


if __name__ == "__main__":
    foreign_parameters()
