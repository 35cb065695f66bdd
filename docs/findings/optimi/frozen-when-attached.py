"""attachment/thawed (MUST): optimi diverges.

A parameter that is frozen when it is attached trains from when it is thawed, or is refused at attachment.

Observed: parameter '0.weight' differs from the standard loop after event 5, Backward(): largest difference 0.00577
"""

import inspect
import sys
import weakref
from itertools import count

import optimi
import torch
from torch import nn


def make(optimizer_class, params, optimizer_kwargs, **release):
    own, of_torch = (getattr(optimi, optimizer_class.__name__), inspect.signature(optimizer_class).parameters)
    lacking = {*of_torch} - {*inspect.signature(own).parameters} | {"dampening"}
    return own(params, **{name: value for name, value in optimizer_kwargs.items() if name not in lacking}, **release)


standard_optimizer = make
prepared = weakref.WeakKeyDictionary()


def params_of(optimizer):
    return {param for group in optimizer.param_groups for param in group["params"]}


def optimizers(module):
    return [*dict.fromkeys(each for param in module.parameters() for each in prepared if param in params_of(each))]


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        optimizer = make(optimizer_class, params, optimizer_kwargs, gradient_release=True)
        modules = [part for part in module.modules() if params_of(optimizer) <= set(part.parameters())]
        smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
        optimi.prepare_for_gradient_release(smallest, optimizer, ignore_existing_hooks=not optimizers(smallest))
        prepared[optimizer] = None


def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    model[0].weight.requires_grad_(False)
    model[0].bias.requires_grad_(False)
    return model


def standard_loop():
    model = build()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = standard_optimizer(torch.optim.Adam, model.parameters(), {"lr": 0.01})
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
        attach(model, [(torch.optim.Adam, model.parameters(), {"lr": 0.01}, True)])
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
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
