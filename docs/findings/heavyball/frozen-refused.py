"""fsdp/frozen_parameters (MUST): heavyball refuses in case FSDP2.

Frozen parameters among the sharded stay as they are; the others train.

Observed: rank 0: event 1, Attach() raises RuntimeError: cannot register a hook on a tensor that doesn't require
gradient
"""

import tempfile

import heavyball.utils
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import fsdp


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    heavyball.utils.compile_mode = None
    return optimizer_class(params, **optimizer_kwargs)


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    heavyball.utils.compile_mode = None
    heavyball.utils.fused_hook(params, optimizer_class, **optimizer_kwargs)


def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    return model


def standard_loop(rank):
    model = build()
    fsdp.fully_shard(model)
    optimizer = standard_optimizer(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    return {name: param.to_local() for name, param in model.named_parameters()}


def in_backward(rank):
    model = build()
    fsdp.fully_shard(model)
    apply(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    return {name: param.to_local() for name, param in model.named_parameters()}


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", world_size=2, rank=rank)
    expected, actual = (standard_loop(rank), in_backward(rank))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(main, (folder,), 2, start_method="forkserver")
