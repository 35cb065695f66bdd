"""fsdp/early_step (MUST): tutorial fails in case FSDP1.

Sharded layer by layer, the last layer is stepped before the backward of the first layer is over.

Observed: rank 0: the last layer was not stepped while the first layer's backward waited for it for 5 s
"""

import tempfile
import threading
import weakref
from datetime import timedelta
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp.wrap import ModuleWrapPolicy


attached = weakref.WeakKeyDictionary()


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    optimizer_dict = {param: optimizer_class([param], **optimizer_kwargs) for param in params}

    def optimizer_hook(param):
        optimizer_dict[param].step()
        optimizer_dict[param].zero_grad()

    for param, optimizer in optimizer_dict.items():
        param.register_post_accumulate_grad_hook(optimizer_hook)
        attached[optimizer] = None


def optimizers(module):
    held = [(optimizer, optimizer.param_groups[0]["params"][0]) for optimizer in attached]
    return [optimizer for param in module.parameters() for optimizer, its_param in held if its_param is param]


def _on_rank(number, world_size, folder, body, *arguments):
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=20), world_size, number)
    body(SimpleNamespace(number=number, world_size=world_size, device="cpu"), *arguments)


def on_ranks(world_size, body, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_on_rank, (world_size, folder, body, *arguments), nprocs=world_size)


TRAINED = (torch.optim.AdamW, {"lr": 0.01})


def parameters_of(optimizer):
    return {id(param) for group in optimizer.param_groups for param in group["params"]}


def _wait_for_early_step(rank, shards):
    device = torch.device(rank.device)
    model = nn.Sequential(nn.Linear(4, 2048), nn.Linear(2048, 2048)).to(device)
    if shards:
        mesh = init_device_mesh(device.type, (rank.world_size,))
        for module in (*model, model):
            fsdp.fully_shard(module, mesh=mesh)
        wrapped = model
    else:
        each_layer = ModuleWrapPolicy([nn.Linear])
        wrapped = fsdp.FullyShardedDataParallel(
            model, use_orig_params=True, auto_wrap_policy=each_layer, device_id=device
        )
    optimizer_class, options = TRAINED
    apply(optimizer_class, model.parameters(), options)
    stepped = threading.Event()
    last = {id(param) for param in [*model.parameters()][-2:]}

    def note_step(optimizer, *_):
        if not last.isdisjoint(parameters_of(optimizer)):
            stepped.set()

    for optimizer in optimizers(model):
        optimizer.register_step_post_hook(note_step)
    waits = []

    def wait_in_backward(_, __, output):
        output.register_hook(lambda _: waits.append(stepped.wait(5)))

    model[0].register_forward_hook(wait_in_backward)
    wrapped(torch.randn(8, 4, device=device)).sum().backward()
    assert waits == [True], "the last layer was not stepped while the first layer's backward waited for it for 5 s"


def early_step(shards):
    on_ranks(2, _wait_for_early_step, shards)


if __name__ == "__main__":
    early_step(shards=False)
