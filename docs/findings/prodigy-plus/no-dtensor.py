"""fsdp/early_step (MUST): prodigy-plus fails in case FSDP2.

Sharded layer by layer, the last layer is stepped before the backward of the first layer is over.

Observed: rank 0: backward raises RuntimeError: aten.add_.Tensor got mixed torch.Tensor and DTensor, need to convert all
torch.Tensor to DTensor before calling distributed operators!
"""

import tempfile
import threading
import weakref
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import torch
import torch.distributed as dist
from prodigyplus import ProdigyPlusScheduleFree
from torch import nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp.wrap import ModuleWrapPolicy


attached = weakref.WeakKeyDictionary()


def step_and_free(optimizer, number, index, param):
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    optimizer = ProdigyPlusScheduleFree(params, fused_back_pass=True, **optimizer_kwargs)
    attached[optimizer] = None
    for number, group in enumerate(optimizer.param_groups):
        for index, param in enumerate(group["params"]):
            if param.requires_grad:
                param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


def params_of(optimizer):
    return [param for group in optimizer.param_groups for param in group["params"]]


def optimizers(module):
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(params_of(optimizer))]


def _on_rank(number, world_size, folder, body, *arguments):
    dist.init_process_group("gloo", f"file://{folder}/store", timedelta(seconds=20), world_size, number)
    body(SimpleNamespace(number=number, world_size=world_size, device="cpu"), *arguments)


def on_ranks(world_size, body, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_on_rank, (world_size, folder, body, *arguments), nprocs=world_size)


TRAINED = (ProdigyPlusScheduleFree, {"d0": 1e-05, "stochastic_rounding": False, "use_schedulefree": False})


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
    early_step(shards=True)
