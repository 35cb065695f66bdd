"""attachment/thawed (MUST): prodigy-plus diverges.

A parameter that is frozen when it is attached trains from when it is thawed, or is refused at attachment.

Observed: parameter '0.weight' differs from the standard loop after event 5, Backward(): largest difference 1.19e-05
"""

import sys
from functools import partial
from itertools import count

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


def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    model[0].weight.requires_grad_(False)
    model[0].bias.requires_grad_(False)
    return model


def standard_loop():
    model = build()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = ProdigyPlusScheduleFree(model.parameters(), d0=1e-05, stochastic_rounding=False, use_schedulefree=False)
    for _ in range(3):
        model(next(batches)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for param in [model[0].weight, model[0].bias]:
        param.requires_grad_(True)
    model(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    model = build()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    try:
        apply(
            ProdigyPlusScheduleFree,
            model.parameters(),
            {"d0": 1e-05, "stochastic_rounding": False, "use_schedulefree": False},
        )
    except (RuntimeError, TypeError, ValueError) as error:
        print(f"refused, which passes as well: {type(error).__name__}: {error}")
        sys.exit()
    for _ in range(3):
        model(next(batches)).square().mean().backward()
    for param in [model[0].weight, model[0].bias]:
        param.requires_grad_(True)
    model(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    atol = 1e-05 * value.abs().max().item()
    torch.testing.assert_close(actual[name], value, rtol=0, atol=atol, equal_nan=True, msg=f"{name}: {{}}".format)
