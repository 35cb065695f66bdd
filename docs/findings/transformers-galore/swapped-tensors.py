"""lifetime/swapped_tensors (MUST): transformers-galore diverges in case GaLoreAdamW-cast.

After a conversion that swaps the tensors under the Parameter objects, these go on training.

Observed: event 5, Backward() goes through, where the standard loop raises RuntimeError: expected m1 and m2 to have the
same dtype, but got: double != float
"""

import gc
import sys
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
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    batches = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = standard_optimizer(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2})
    for _ in range(3):
        model(next(batches)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.__future__.set_swap_module_params_on_conversion(True)
    model.to(torch.float64)
    torch.__future__.set_swap_module_params_on_conversion(False)
    model(next(batches).to(torch.float64)).square().mean().backward()
    optimizer.step()


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    batches = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    attach(model, [(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2}, True)])
    for _ in range(3):
        model(next(batches)).square().mean().backward()
    torch.__future__.set_swap_module_params_on_conversion(True)
    model.to(torch.float64)
    torch.__future__.set_swap_module_params_on_conversion(False)
    model(next(batches).to(torch.float64)).square().mean().backward()


try:
    standard_loop()
except Exception as error:
    expected = f"{type(error).__name__}: {error}"
try:
    in_backward()
except Exception as error:
    print(f"raises, as the standard loop does: {type(error).__name__}: {error}")
else:
    sys.exit(f"goes through, where the standard loop raises {expected}")
