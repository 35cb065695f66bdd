"""hazards/detached_use (MUST): optimi fails in case DetachedUse.

A parameter that the graph uses as a constant too (`detach()`, `.data`) keeps its value until that use is done.

Observed: an accident, not a refusal: event 1, Backward() raises RuntimeError: one of the variables needed for gradient
computation has been modified by an inplace operation: [torch.FloatTensor [5, 5]] is at version 1; expected version 0
instead. Hint: enable anomaly detection to find the operation that failed to compute its gradient, with
torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

import inspect
import weakref

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
    optimizer = standard_optimizer(torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9})
    model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = DetachedUse()
    attach(model, [(torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9}, True)])
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
