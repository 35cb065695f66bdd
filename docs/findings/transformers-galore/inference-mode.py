"""hazards/grad_mode (MUST): transformers-galore fails in case GaLoreAdamW-inference_mode.

Backward inside `torch.inference_mode()` or `torch.no_grad()`, as in evaluation code, trains as anywhere else.

Observed: an accident, not a refusal: event 2, Backward() raises RuntimeError: Inplace update to inference tensor
outside InferenceMode is not allowed.You can make a clone to get a normal tensor before doing inplace update.See
https://github.com/pytorch/rfcs/pull/17 for more details.
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


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = standard_optimizer(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2})
    loss = model(next(batches)).square().mean()
    with torch.inference_mode():
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    model(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    attach(model, [(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2}, True)])
    loss = model(next(batches)).square().mean()
    with torch.inference_mode():
        loss.backward()
    model(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
