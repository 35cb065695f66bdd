"""gradients/dropped_by_hook (MUST): prodigy-plus diverges in case after.

A parameter whose gradient a user's post-accumulate-grad hook has set to None is not stepped.

Observed: parameter '2.weight' differs from the standard loop after event 2, Backward(): largest difference 1e-05
"""

from functools import partial

import torch
from prodigyplus import ProdigyPlusScheduleFree
from torch import nn


def step_and_free(optimizer, number, index, param):
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    optimizer = ProdigyPlusScheduleFree(params, fused_back_pass=True, **optimizer_kwargs)
    for number, group in enumerate(optimizer.param_groups):
        for index, param in filter(lambda indexed: indexed[1].requires_grad, enumerate(group["params"])):
            param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


def drop(param):
    param.grad = None


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = ProdigyPlusScheduleFree(model.parameters(), d0=1e-05, stochastic_rounding=False, use_schedulefree=False)
    for param in [model[2].weight, model[4].bias]:
        param.register_post_accumulate_grad_hook(drop)
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    apply(
        ProdigyPlusScheduleFree,
        model.parameters(),
        {"d0": 1e-05, "stochastic_rounding": False, "use_schedulefree": False},
    )
    for param in [model[2].weight, model[4].bias]:
        param.register_post_accumulate_grad_hook(drop)
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    atol = 1e-05 * value.abs().max().item()
    torch.testing.assert_close(actual[name], value, rtol=0, atol=atol, equal_nan=True, msg=f"{name}: {{}}".format)
