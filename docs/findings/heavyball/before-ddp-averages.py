"""ddp/early_step (MUST): heavyball fails.

The last layer is stepped before the backward of the first layer is over, and so before its all-reduce begins.

Observed: rank 0: backward raises RuntimeError: one of the variables needed for gradient computation has been modified
by an inplace operation: [torch.FloatTensor [6, 6]], which is output 0 of AsStrided, is at version 4; expected version 3
instead. Hint: enable anomaly detection to find the operation that failed to compute its gradient, with
torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

import tempfile
import threading
import weakref
from datetime import timedelta
from types import SimpleNamespace

import heavyball.utils
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


attached = weakref.WeakKeyDictionary()


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    heavyball.utils.compile_mode = None
    attached[heavyball.utils.fused_hook(params, optimizer_class, **optimizer_kwargs)] = None


def optimizers(module):
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(optimizer.param_groups[0]["params"])]


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
