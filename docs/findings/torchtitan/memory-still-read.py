"""hazards/detached_use (MUST): torchtitan fails in case DetachedUse.

A parameter that the graph uses as a constant too (`detach()`, `.data`) keeps its value until that use is done.

Observed: an accident, not a refusal: event 1, Backward() raises RuntimeError: one of the variables needed for gradient
computation has been modified by an inplace operation: [torch.FloatTensor [5, 5]] is at version 2; expected version 0
instead. Hint: enable anomaly detection to find the operation that failed to compute its gradient, with
torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

import weakref

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
    optimizer = AdamW(model.parameters(), lr=0.1)
    model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = DetachedUse()
    attach(model, [(AdamW, model.parameters(), {"lr": 0.1}, True)])
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
