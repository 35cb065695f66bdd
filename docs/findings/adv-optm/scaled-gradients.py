"""hazards/grad_scaler (MUST): adv-optm fails in case AdamW_adv.

A loss that a `GradScaler` has scaled trains as in the standard loop, or its backward is refused.

Observed: an accident, not a refusal: event 2, ScaledBackward() raises AssertionError: No inf checks were recorded for
this optimizer.
"""

import weakref
from functools import partial
from itertools import count

import torch
from adv_optm import AdamW_adv
from torch import nn


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


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = AdamW_adv(model.parameters(), lr=0.01, stochastic_rounding=False)
    model(next(batches)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    scaler.scale(model(next(batches)).square().mean()).backward()
    scaler.step(optimizer)
    scaler.update()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    apply(AdamW_adv, model.parameters(), {"lr": 0.01, "stochastic_rounding": False})
    backward(model(next(batches)).square().mean(), model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    backward(scaler.scale(model(next(batches)).square().mean()), model)
    for optimizer in optimizers(model):
        scaler.step(optimizer)
    scaler.update()
    return dict(model.named_parameters())


expected = standard_loop()
try:
    actual = in_backward()
except (RuntimeError, TypeError, ValueError) as error:
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
else:
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
