"""ddp/early_step (MUST): torch fails.

The last layer is stepped before the backward of the first layer is over, and so before its all-reduce begins.

Observed: rank 0: backward raises RuntimeError: Cannot access accelerator device when none is available.
"""

import tempfile
import time
from datetime import timedelta
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward
from torch.nn.parallel import DistributedDataParallel


def _on_rank(number, world_size, folder, body, *arguments):
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=20), world_size, number)
    body(SimpleNamespace(number=number, world_size=world_size, device="cpu"), *arguments)


def on_ranks(world_size, body, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world_size, folder, body, *arguments)
        torch.multiprocessing.start_processes(_on_rank, arguments, world_size, start_method="forkserver")


PLAIN_SGD = (torch.optim.SGD, {"lr": 0.01})
A_BUCKET_EACH = {"bucket_cap_mb": 1e-05}


def local(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


@torch.no_grad()
def is_stepped_within(seconds, param, before):
    ends = time.monotonic() + seconds
    while local(param).shape != before.shape or torch.equal(local(param), before):
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True


def _wait_for_early_step(rank):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(rank.device)
    last = model.get_parameter("4.weight")
    wrapped = DistributedDataParallel(model, **A_BUCKET_EACH)
    optimizer_class, options = PLAIN_SGD
    _apply_optimizer_in_backward(optimizer_class, model.parameters(), options)
    features = torch.randn(8, 4, device=rank.device)
    for _ in range(2):
        wrapped(features).sum().backward()
    before = last.detach().clone()
    waits = []

    def wait_in_backward(_, __, output):
        output.register_hook(lambda _: waits.append(is_stepped_within(5, last, before)))

    model[0].register_forward_hook(wait_in_backward)
    wrapped(features).sum().backward()
    assert waits == [True], "the last layer was not stepped while the first layer's backward waited for it for 5 s"


def early_step():
    on_ranks(2, _wait_for_early_step)


if __name__ == "__main__":
    early_step()
