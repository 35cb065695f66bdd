"""lifetime/swapped_tensors (MUST): torchrec fails in case SGD-loaded-weights.

After a conversion that swaps the tensors under the Parameter objects, these go on training.

Observed: torn update: event 4, LoadWeights(swap=True) raises RuntimeError: Error(s) in loading state_dict for
TwoLayers:, after it had changed 0.weight, 0.bias, 1.weight, 1.bias
"""

import importlib.util
import sys
from functools import cache
from itertools import count
from pathlib import Path

import torch
from torch import nn
from torch.testing import assert_close


@cache
def file_of(name):
    package = importlib.util.find_spec("torchrec")
    spec = importlib.util.spec_from_file_location(name, Path(package.origin).parent / "optim" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    file_of("apply_optimizer_in_backward").apply_optimizer_in_backward(optimizer_class, params, optimizer_kwargs)


class TwoLayers(nn.Sequential):
    """Two layers of one shape, whose parameters can be shared."""

    def __init__(self):
        super().__init__(nn.Linear(5, 5), nn.Linear(5, 5))


def standard_loop():
    torch.manual_seed(0)
    model = TwoLayers()
    batches = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        model(next(batches)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.__future__.set_swap_module_params_on_conversion(True)
    model.load_state_dict(
        {
            name: value * 0.5 if value.is_floating_point() else value.clone()
            for name, value in model.state_dict().items()
        }
    )
    torch.__future__.set_swap_module_params_on_conversion(False)
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = TwoLayers()
    batches = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    apply(torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
    for _ in range(3):
        model(next(batches)).square().mean().backward()
    torch.__future__.set_swap_module_params_on_conversion(True)
    model.load_state_dict(
        {
            name: value * 0.5 if value.is_floating_point() else value.clone()
            for name, value in model.state_dict().items()
        }
    )
    torch.__future__.set_swap_module_params_on_conversion(False)
    return dict(model.named_parameters())


expected = standard_loop()
try:
    actual = in_backward()
except (RuntimeError, TypeError, ValueError) as error:
    if "Error(s) in loading state_dict for TwoLa" in str(error):
        raise
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
    sys.exit()
for name, value in expected.items():
    assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{name}: {text}")
