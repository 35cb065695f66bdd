"""fsdp/attached_before (MUST): adv-optm diverges in case Lion_adv-whole.

Attached before `fully_shard`, through the implementation's own call: as an optimizer built afterwards.

Observed: rank 0: optimizer state of '0.weight' differs from the standard loop after event 1, FullyShard(): 0 optimizers
hold a state for it, expected 1
"""

import tempfile
import weakref
from functools import partial

import torch
import torch.distributed as dist
from adv_optm import Lion_adv
from torch import nn
from torch.distributed import fsdp


attached = weakref.WeakKeyDictionary()


def step_and_free(optimizer, number, index, param):
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    optimizer = optimizer_class(params, **optimizer_kwargs)
    attached[optimizer] = None
    for number, group in enumerate(optimizer.param_groups):
        for index, param in filter(lambda indexed: indexed[1].requires_grad, enumerate(group["params"])):
            param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


def params_of(optimizer):
    return [param for group in optimizer.param_groups for param in group["params"]]


def optimizers(module):
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(params_of(optimizer))]


def standard_loop(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = Lion_adv(model.parameters(), lr=0.001, stochastic_rounding=False)
    fsdp.fully_shard(model)
    optimizer = Lion_adv(model.parameters(), lr=0.001, stochastic_rounding=False)
    return {
        name: [optimizer.state[param] for optimizer in [optimizer] if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


def in_backward(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    apply(Lion_adv, model.parameters(), {"lr": 0.001, "stochastic_rounding": False})
    fsdp.fully_shard(model)
    return {
        name: [optimizer.state[param] for optimizer in optimizers(model) if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", world_size=2, rank=rank)
    expected = standard_loop(rank)
    try:
        actual = in_backward(rank)
    except (RuntimeError, TypeError, ValueError) as error:
        print(f"refused, which passes as well: {type(error).__name__}: {error}")
    else:
        for name, value in expected.items():
            torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(main, (folder,), 2, start_method="forkserver")
