"""ddp/early_step (MUST): heavyball fails.

The last layer is stepped before the backward of the first layer is over, and so before its all-reduce begins.

Observed: rank 0: backward raises RuntimeError: one of the variables needed for gradient computation has been modified
by an inplace operation: [torch.FloatTensor [6, 6]], which is output 0 of AsStrided, is at version 4; expected version 3
instead. Hint: enable anomaly detection to find the operation that failed to compute its gradient, with
torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

import tempfile
import time
from datetime import timedelta
from types import SimpleNamespace

import heavyball.utils
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    heavyball.utils.compile_mode = None
    heavyball.utils.fused_hook(params, optimizer_class, **optimizer_kwargs)


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
    apply(optimizer_class, model.parameters(), options)
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
