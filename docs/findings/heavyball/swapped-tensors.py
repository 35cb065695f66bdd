"""lifetime/swapped_tensors (MUST): heavyball diverges in case AdamW-cast.

After a conversion that swaps the tensors under the Parameter objects, these go on training.

Observed: event 5, Backward() goes through, where the standard loop raises RuntimeError: expected dtype float for `end`
but got dtype double
"""

import sys
import weakref
from itertools import count

import heavyball.utils
import torch
from torch import nn


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    heavyball.utils.compile_mode = None
    return optimizer_class(params, **optimizer_kwargs)


attached = weakref.WeakKeyDictionary()


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    heavyball.utils.compile_mode = None
    attached[heavyball.utils.fused_hook(params, optimizer_class, **optimizer_kwargs)] = None


class TwoLayers(nn.Sequential):
    """Two layers of one shape, whose parameters can be shared."""

    def __init__(self):
        super().__init__(nn.Linear(5, 5), nn.Linear(5, 5))


def standard_loop():
    torch.manual_seed(0)
    model = TwoLayers()
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
    optimizer.zero_grad()


def in_backward():
    torch.manual_seed(0)
    model = TwoLayers()
    batches = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    apply(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
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
