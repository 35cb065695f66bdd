"""hazards/detached_use (MUST): torchrec fails in case DetachedUse.

A parameter that the graph uses as a constant too (`detach()`, `.data`) keeps its value until that use is done.

Observed: an accident, not a refusal: event 1, Backward() raises RuntimeError: one of the variables needed for gradient
computation has been modified by an inplace operation: [torch.FloatTensor [5, 5]] is at version 1; expected version 0
instead. Hint: enable anomaly detection to find the operation that failed to compute its gradient, with
torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

import importlib.util
from pathlib import Path

import torch
from torch import nn


def file_of(name):
    package = importlib.util.find_spec("torchrec")
    spec = importlib.util.spec_from_file_location(name, Path(package.origin).parent / "optim" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    file_of("apply_optimizer_in_backward").apply_optimizer_in_backward(optimizer_class, params, optimizer_kwargs)


class DetachedUse(nn.Module):
    """A weight that is trained in one place, and a constant in an earlier one, whose backward comes later."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.weight = nn.Parameter(torch.randn(5, 5) / 2)

    def constant(self, features):
        return features @ self.weight.detach()

    def forward(self, features):
        return torch.tanh(self.constant(torch.tanh(self.first(features)))) @ self.weight


def standard_loop():
    torch.manual_seed(0)
    model = DetachedUse()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = DetachedUse()
    apply(torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9})
    model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected = standard_loop()
try:
    actual = in_backward()
except (RuntimeError, TypeError, ValueError) as error:
    if "one of the variables needed for gradient" in str(error):
        raise
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
else:
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
