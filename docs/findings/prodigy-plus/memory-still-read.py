"""hazards/detached_use (MUST): prodigy-plus fails in case DetachedUse.

A parameter that the graph uses as a constant too (`detach()`, `.data`) keeps its value until that use is done.

Observed: an accident, not a refusal: event 1, Backward() raises RuntimeError: one of the variables needed for gradient
computation has been modified by an inplace operation: [torch.FloatTensor [5, 5]] is at version 1; expected version 0
instead. Hint: enable anomaly detection to find the operation that failed to compute its gradient, with
torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

from functools import partial

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
    optimizer = ProdigyPlusScheduleFree(model.parameters(), d0=1e-05, stochastic_rounding=False, use_schedulefree=False)
    model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = DetachedUse()
    apply(
        ProdigyPlusScheduleFree,
        model.parameters(),
        {"d0": 1e-05, "stochastic_rounding": False, "use_schedulefree": False},
    )
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
        atol = 1e-05 * value.abs().max().item()
        torch.testing.assert_close(actual[name], value, rtol=0, atol=atol, equal_nan=True, msg=f"{name}: {{}}".format)
