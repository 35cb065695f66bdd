"""schedule/every_scheduler (MUST): transformers-galore refuses in case CyclicLR-momentum.

Every public class of `torch.optim.lr_scheduler` gives the steps that it gives in the standard loop.

Observed: event 1, StartSchedule(Scheduler('CyclicLR', options={'base_lr': 0.01, 'max_lr': 0.1, 'step_size_up': 3,
'base_momentum': 0.6})) raises ValueError: optimizer must support momentum or beta1 with `cycle_momentum` option enabled
"""

import gc
import weakref

import torch
from galore_torch import GaLoreAdamW
from torch import nn
from torch.optim import lr_scheduler
from transformers import Trainer, TrainingArguments


def model_of(params, modules):
    return next((module for module in modules if params == set(module.parameters())), None)


def make(optim, model, lr, **options):
    optim_args = ",".join((f"{name}={value}" for name, value in options.items()))
    args = TrainingArguments(optim=optim, optim_args=optim_args, optim_target_modules="all-linear", learning_rate=lr)
    optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    params = kwargs.pop("params")
    return optimizer_class(kwargs.pop("optimizer_dict", params), **kwargs)


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    objects = (each for generation in range(3) for each in gc.get_objects(generation))
    model = model_of((params := set(params)), (each for each in objects if issubclass(type(each), torch.nn.Module)))
    return make("galore_adamw", model, **optimizer_kwargs) if model else optimizer_class(params, optimizer_kwargs["lr"])


made = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        model = model_of(set(params), module.modules())
        made.setdefault(model, []).append(make("galore_adamw_layerwise", model, **optimizer_kwargs))


def dummies(module):
    return [one for each in made.values() for one in each if set(one.optimizer_dict) & set(module.parameters())]


def schedule(module, scheduler_class, **kwargs):
    return [scheduler_class(dummy, **kwargs) for dummy in dummies(module)]


library_schedule = schedule


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = standard_optimizer(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2})
    schedules = [lr_scheduler.CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, step_size_up=3, base_momentum=0.6)]
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    attach(model, [(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2}, True)])
    schedules = library_schedule(
        model, lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=3, base_momentum=0.6
    )
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
