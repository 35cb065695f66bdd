"""attachment/named_parameters (MUST): torchrec fails.

`model.named_parameters()` attaches as `model.parameters()` does, or is refused.

Observed: an accident, not a refusal: event 0, Attach() raises AttributeError: 'tuple' object has no attribute 'view_as'
"""

import importlib.util
from functools import cache
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


class MLP(nn.Sequential):
    """Weights and biases, three layers."""

    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def standard_loop():
    torch.manual_seed(0)
    model = MLP()
    optimizer = torch.optim.Adam(model.named_parameters(), lr=0.01)
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = MLP()
    apply(torch.optim.Adam, model.named_parameters(), {"lr": 0.01})
    return dict(model.named_parameters())


expected = standard_loop()
actual = in_backward()
for name, value in expected.items():
    assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{name}: {text}")
