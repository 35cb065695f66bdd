"""lifetime/swapped_tensors (MUST): optimi diverges in case AdamW-cast.

After a conversion that swaps the tensors under the Parameter objects, these go on training.

Observed: event 5, Backward() goes through, where the standard loop raises RuntimeError: expected dtype float for `end`
but got dtype double
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


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    batches = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = standard_optimizer(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
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
    attach(model, [(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1}, True)])
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
