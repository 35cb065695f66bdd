"""fsdp/frozen_parameters (MUST): heavyball refuses in case FSDP2.

Frozen parameters among the sharded stay as they are; the others train.

Observed: rank 0: event 1, Attach() raises RuntimeError: cannot register a hook on a tensor that doesn't require
gradient
"""

import tempfile
import weakref
from datetime import timedelta

import heavyball.utils
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import fsdp
from torch.testing import assert_close


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    heavyball.utils.compile_mode = None
    return optimizer_class(params, **optimizer_kwargs)


attached = weakref.WeakKeyDictionary()


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    heavyball.utils.compile_mode = None
    attached[heavyball.utils.fused_hook(params, optimizer_class, **optimizer_kwargs)] = None


class MLP(nn.Sequential):
    """Weights and biases, three layers."""

    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def build():
    model = MLP()
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    return model


def standard_loop(rank):
    torch.manual_seed(0)
    model = build()
    fsdp.fully_shard(model)
    optimizer = standard_optimizer(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    return {name: param.to_local() for name, param in model.named_parameters()}


def in_backward(rank):
    torch.manual_seed(0)
    model = build()
    fsdp.fully_shard(model)
    apply(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    return {name: param.to_local() for name, param in model.named_parameters()}


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", timedelta(seconds=20), 2, rank)
    expected = standard_loop(rank)
    actual = in_backward(rank)
    for name, value in expected.items():
        assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{name}: {text}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(main, (folder,), nprocs=2)
