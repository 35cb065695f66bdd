"""schedule/momentum_and_betas (MUST): heavyball fails in case SGD-CyclicLR-momentum.

Momentum, and betas, that a scheduler cycles (CyclicLR, OneCycleLR) take effect at the next step.

Observed: an accident, not a refusal: event 1, StartSchedule(Scheduler('CyclicLR', options={'base_lr': 0.01, 'max_lr':
0.1, 'step_size_up': 3, 'base_momentum': 0.6})) raises AttributeError: 'functools.partial' object has no attribute
'__func__'
"""

import weakref

import heavyball.utils
import torch
from torch import nn
from torch.optim import lr_scheduler


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    heavyball.utils.compile_mode = None
    return optimizer_class(params, **optimizer_kwargs)


attached = weakref.WeakKeyDictionary()


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    heavyball.utils.compile_mode = None
    attached[heavyball.utils.fused_hook(params, optimizer_class, **optimizer_kwargs)] = None


def optimizers(module):
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(optimizer.param_groups[0]["params"])]


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = standard_optimizer(torch.optim.SGD, model.parameters(), {"lr": 0.1, "momentum": 0.9})
    schedules = [lr_scheduler.CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, step_size_up=3, base_momentum=0.6)]
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    apply(torch.optim.SGD, model.parameters(), {"lr": 0.1, "momentum": 0.9})
    schedules = [
        lr_scheduler.CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, step_size_up=3, base_momentum=0.6)
        for optimizer in optimizers(model)
    ]
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
