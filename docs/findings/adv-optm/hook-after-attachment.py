"""gradients/dropped_by_hook (MUST): adv-optm diverges in case after.

A parameter whose gradient a user's post-accumulate-grad hook has set to None is not stepped.

Observed: parameter '2.weight' differs from the standard loop after event 2, Backward(): largest difference 0.01
"""

import weakref
from functools import partial

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


def drop(param):
    param.grad = None


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = AdamW_adv(model.parameters(), lr=0.01, stochastic_rounding=False)
    for param in [model[2].weight, model[4].bias]:
        param.register_post_accumulate_grad_hook(drop)
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    apply(AdamW_adv, model.parameters(), {"lr": 0.01, "stochastic_rounding": False})
    for param in [model[2].weight, model[4].bias]:
        param.register_post_accumulate_grad_hook(drop)
    backward(model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean(), model)
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
