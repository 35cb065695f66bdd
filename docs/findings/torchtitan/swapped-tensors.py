"""lifetime/swapped_tensors (MUST): torchtitan diverges in case AdamW-cast.

After a conversion that swaps the tensors under the Parameter objects, these go on training.

Observed: event 5, Backward() goes through, where the standard loop raises RuntimeError: expected dtype float for `end`
but got dtype double
"""

import sys
import weakref
from itertools import count

import torch
from torch import nn
from torch.optim import AdamW
from torchtitan.components.optimizer import OptimizersInBackwardContainer


def part_of(module, given):
    own = {part: {id(param): param.requires_grad for param in part.parameters()} for part in module.modules()}
    fitting = [part for part in own if set(filter(own[part].get, own[part])) <= set(given) <= own[part].keys()]
    return min(fitting, key=lambda part: len(own[part]))


containers = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        part = part_of(module, list(map(id, params)))
        containers[part] = OptimizersInBackwardContainer([part], optimizer_class, optimizer_kwargs)
        containers[part].model_parts = weakref.WeakSet([part])


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    batches = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = AdamW(model.parameters(), lr=0.1)
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
    attach(model, [(AdamW, model.parameters(), {"lr": 0.1}, True)])
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
