"""lifetime/swapped_tensors (MUST): prodigy-plus diverges in case ProdigyPlusScheduleFree-cast.

After a conversion that swaps the tensors under the Parameter objects, these go on training.

Observed: event 5, Backward() goes through, where the standard loop raises RuntimeError: dot : expected both vectors to
have same dtype, but found Double and Float
"""

import sys
from functools import partial
from itertools import count

import torch
from prodigyplus import ProdigyPlusScheduleFree
from torch import nn


def step_and_free(optimizer, number, index, param):
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    optimizer = ProdigyPlusScheduleFree(params, fused_back_pass=True, **optimizer_kwargs)
    for number, group in enumerate(optimizer.param_groups):
        for index, param in filter(lambda indexed: indexed[1].requires_grad, enumerate(group["params"])):
            param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    batches = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = ProdigyPlusScheduleFree(model.parameters(), d0=1e-05, stochastic_rounding=False)
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
    apply(ProdigyPlusScheduleFree, model.parameters(), {"d0": 1e-05, "stochastic_rounding": False})
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
