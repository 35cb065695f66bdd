"""schedule/tensor_lr (MUST): tutorial diverges in case ExponentialLR.

A learning rate that is a tensor is scheduled like one that is a number.

Observed: parameter '0.weight' differs from the standard loop after event 4, Backward(): largest difference 0.00296
"""

import weakref
from itertools import count

import torch
from torch import nn
from torch.optim import lr_scheduler


attached = weakref.WeakKeyDictionary()


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    optimizer_dict = {param: optimizer_class([param], **optimizer_kwargs) for param in params}

    def optimizer_hook(param):
        optimizer_dict[param].step()
        optimizer_dict[param].zero_grad()

    for param, optimizer in optimizer_dict.items():
        param.register_post_accumulate_grad_hook(optimizer_hook)
        attached[optimizer] = None


def optimizers(module):
    held = [(optimizer, optimizer.param_groups[0]["params"][0]) for optimizer in attached]
    return [optimizer for param in module.parameters() for optimizer, its_param in held if its_param is param]


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1), momentum=0.9, weight_decay=0.01)
    schedules = [lr_scheduler.ExponentialLR(optimizer, gamma=0.7)]
    model(next(batches)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    for schedule in schedules:
        schedule.step()
    model(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    apply(torch.optim.SGD, model.parameters(), {"lr": torch.tensor(0.1), "momentum": 0.9, "weight_decay": 0.01})
    schedules = [lr_scheduler.ExponentialLR(optimizer, gamma=0.7) for optimizer in optimizers(model)]
    model(next(batches)).square().mean().backward()
    for schedule in schedules:
        schedule.step()
    model(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
