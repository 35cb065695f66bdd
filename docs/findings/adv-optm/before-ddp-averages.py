"""ddp/plain_ddp (MUST): adv-optm diverges in case 2-before.

Wrapped in plain DDP, without a word to the implementation, ranks train as ever, or it refuses.

Observed: rank 0: parameter '0.weight' differs from the standard loop after event 2, Backward(): largest difference
0.0267
"""

import tempfile
import weakref
from functools import partial
from itertools import count

import torch
import torch.distributed as dist
from adv_optm import AdamW_adv
from torch import nn
from torch.nn.parallel import DistributedDataParallel


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


def backward(loss, module, **kwargs):
    loss.backward(**kwargs)
    for optimizer in optimizers(module):
        optimizer.step()
        optimizer.zero_grad()


def standard_loop(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    optimizer = AdamW_adv(model.parameters(), lr=0.01, stochastic_rounding=False)
    wrapped = DistributedDataParallel(model)
    wrapped(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    apply(AdamW_adv, model.parameters(), {"lr": 0.01, "stochastic_rounding": False})
    wrapped = DistributedDataParallel(model)
    backward(wrapped(next(batches)).square().mean(), model)
    return dict(model.named_parameters())


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
