"""ddp/early_step (MUST): torchrec fails.

The last layer is stepped before the backward of the first layer is over, and so before its all-reduce begins.

Observed: rank 0: backward raises RuntimeError: Cannot access accelerator device when none is available.
"""

import importlib.util
import tempfile
import threading
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@cache
def file_of(name):
    package = importlib.util.find_spec("torchrec")
    spec = importlib.util.spec_from_file_location(name, Path(package.origin).parent / "optim" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    file_of("apply_optimizer_in_backward").apply_optimizer_in_backward(optimizer_class, params, optimizer_kwargs)


def optimizers(module):
    own = file_of("optimizers").in_backward_optimizer_filter(module.named_parameters(), include=True)
    return [optimizer for _, param in own for optimizer in param._in_backward_optimizers]


def _on_rank(number, world_size, folder, body, *arguments):
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=20), world_size, number)
    body(SimpleNamespace(number=number, world_size=world_size, device="cpu"), *arguments)


def on_ranks(world_size, body, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_on_rank, (world_size, folder, body, *arguments), nprocs=world_size)


PLAIN_SGD = (torch.optim.SGD, {"lr": 0.01})


def require_step_hooks(*, ran):
    pass


A_BUCKET_EACH = {"bucket_cap_mb": 1e-05}


class MLP(nn.Sequential):
    """Weights and biases, three layers."""

    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def parameters_of(optimizer):
    return {id(param) for group in optimizer.param_groups for param in group["params"]}


def _wait_for_early_step(rank):
    model = MLP().to(rank.device)
    wrapped = DistributedDataParallel(model, **A_BUCKET_EACH)
    optimizer_class, options = PLAIN_SGD
    apply(optimizer_class, model.parameters(), options)
    stepped = threading.Event()

    def note_step(optimizer, *_):
        if id(model[4].weight) in parameters_of(optimizer):
            stepped.set()

    for optimizer in optimizers(model):
        optimizer.register_step_post_hook(note_step)
    features = torch.randn(8, 4, device=rank.device)
    for _ in range(2):
        wrapped(features).sum().backward()
    require_step_hooks(ran=stepped.is_set())
    waits = []

    def wait_in_backward(_, __, output):
        output.register_hook(lambda _: waits.append(stepped.wait(5)))

    model[0].register_forward_hook(wait_in_backward)
    stepped.clear()
    wrapped(features).sum().backward()
    assert waits == [True], "the last layer was not stepped while the first layer's backward waited for it for 5 s"


def early_step():
    on_ranks(2, _wait_for_early_step)


if __name__ == "__main__":
    early_step()
