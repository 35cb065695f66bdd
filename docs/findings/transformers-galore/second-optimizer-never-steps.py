"""multiple_optimizers/one_step_each (MUST): transformers-galore fails.

Each listed optimizer's `step()` runs once a backward for each of its parameters, as its step hooks count.

Observed: 0 calls of step() in 3 backwards, optimizer 1 of 12 listed
"""

import weakref
from collections import Counter

import torch
from galore_torch import GaLoreAdamW
from torch import nn
from transformers import Trainer, TrainingArguments


def model_of(params, modules):
    return next((module for module in modules if params == set(module.parameters())), None)


def make(optim, model, lr, **options):
    optim_args = ",".join((f"{name}={value}" for name, value in options.items()))
    args = TrainingArguments(optim=optim, optim_args=optim_args, optim_target_modules="all-linear", learning_rate=lr)
    optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    params = kwargs.pop("params")
    return optimizer_class(kwargs.pop("optimizer_dict", params), **kwargs)


made = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        model = model_of(set(params), module.modules())
        made.setdefault(model, []).append(make("galore_adamw_layerwise", model, **optimizer_kwargs))


def dummies(module):
    return [one for each in made.values() for one in each if set(one.optimizer_dict) & set(module.parameters())]


def optimizers(module):
    return [d.optimizer_dict[p] for p in module.parameters() for d in dummies(module) if p in d.optimizer_dict]


PLAIN_SGD = (GaLoreAdamW, {"lr": 0.01, "rank": 2, "update_proj_gap": 2})


def parameters_of(optimizer):
    return {id(param) for group in optimizer.param_groups for param in group["params"]}


def one_step_each(device):
    optimizer_class, options = PLAIN_SGD
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(device)
    for _ in range(2):
        attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    calls = Counter()
    listed = optimizers(model)
    for number, optimizer in enumerate(listed):
        optimizer.register_step_post_hook(
            lambda stepped, *_, number=number: calls.update((number, each) for each in parameters_of(stepped))
        )
    backwards = 3
    for _ in range(backwards):
        model(torch.randn(2, 4, device=device)).sum().backward()
    for number, optimizer in enumerate(listed):
        for param in parameters_of(optimizer):
            assert calls[number, param] == backwards, (
                f"{calls[number, param]} calls of step() in {backwards} backwards, optimizer {number} of {len(listed)} listed"
            )


one_step_each(device="cpu")
