"""fsdp/early_step (MUST): torchtune fails in case FSDP1.

Sharded layer by layer, the last layer is stepped before the backward of the first layer is over.

Observed: rank 0: the last layer was not stepped while the first layer's backward waited for it for 5 s
"""

import tempfile
import time
from datetime import timedelta
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torchtune.training import register_optim_in_bwd_hooks


def attach(module, assignments):
    own = {}
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        for param in params:
            own[param] = optimizer_class([param], **optimizer_kwargs)
    modules = [part for part in module.modules() if own.keys() <= set(part.parameters())]
    smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
    register_optim_in_bwd_hooks(model=smallest, optim_dict=own)


def _on_rank(number, world_size, folder, body, *arguments):
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=20), world_size, number)
    body(SimpleNamespace(number=number, world_size=world_size, device="cpu"), *arguments)


def on_ranks(world_size, body, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world_size, folder, body, *arguments)
        torch.multiprocessing.start_processes(_on_rank, arguments, world_size, start_method="forkserver")


TRAINED = (torch.optim.AdamW, {"lr": 0.01})


def _two_layers(rank, shards):
    device = torch.device(rank.device)
    model = nn.Sequential(nn.Linear(4, 2048), nn.Linear(2048, 2048)).to(device)
    if shards:
        mesh = init_device_mesh(device.type, (rank.world_size,))
        for module in (*model, model):
            fsdp.fully_shard(module, mesh=mesh)
        return (model, model)
    each_layer = ModuleWrapPolicy([nn.Linear])
    wrapped = fsdp.FullyShardedDataParallel(model, use_orig_params=True, auto_wrap_policy=each_layer, device_id=device)
    return (model, wrapped)


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


def _wait_for_early_step(rank, shards):
    optimizer_class, options = TRAINED
    features = torch.randn(8, 4, device=rank.device)
    model, wrapped = _two_layers(rank, shards)
    attach(model, [(optimizer_class, model.parameters(), options, True)])
    wrapped(features).sum().backward()
    last = [*model.parameters()][-2]
    before = local(last.detach()).clone()
    waits = []

    def wait_in_backward(_, __, output):
        output.register_hook(lambda _: waits.append(is_stepped_within(5, last, before)))

    model[0].register_forward_hook(wait_in_backward)
    wrapped(features).sum().backward()
    assert waits == [True], "the last layer was not stepped while the first layer's backward waited for it for 5 s"


def early_step(shards):
    on_ranks(2, _wait_for_early_step, shards)


if __name__ == "__main__":
    early_step(shards=False)
