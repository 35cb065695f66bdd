"""hazards/grad_scaler (MUST): transformers-galore fails in case GaLoreAdamW.

A loss that a `GradScaler` has scaled trains as in the standard loop, or its backward is refused.

Observed: an accident, not a refusal: event 2, ScaledBackward() raises AssertionError: No inf checks were recorded for
this optimizer.
"""

import gc
import weakref
from itertools import count

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


def optimizers(module):
    return [d.optimizer_dict[p] for p in module.parameters() for d in dummies(module) if p in d.optimizer_dict]


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = standard_optimizer(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2})
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
    attach(model, [(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2}, True)])
    model(next(batches)).square().mean().backward()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    scaler.scale(model(next(batches)).square().mean()).backward()
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
