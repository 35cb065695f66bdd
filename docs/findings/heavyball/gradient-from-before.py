"""gradients/from_before (MUST): heavyball fails in case SGD.

A gradient from before attachment counts where backward reaches the parameter: both are added, then stepped.

Observed: an accident, not a refusal: event 2, Backward() raises RuntimeError: one of the variables needed for gradient
computation has been modified by an inplace operation: [torch.FloatTensor [6, 6]], which is output 0 of AsStrided, is at
version 2; expected version 1 instead. Hint: enable anomaly detection to find the operation that failed to compute its
gradient, with torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

import weakref
from itertools import count

import heavyball.utils
import torch
from torch import nn
from torch.testing import assert_close


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    heavyball.utils.compile_mode = None
    return optimizer_class(params, **optimizer_kwargs)


attached = weakref.WeakKeyDictionary()


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    heavyball.utils.compile_mode = None
    attached[heavyball.utils.fused_hook(params, optimizer_class, **optimizer_kwargs)] = None


class MLP(nn.Sequential):
    """Weights and biases, three layers."""

    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def standard_loop():
    torch.manual_seed(0)
    model = MLP()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    model(next(batches)).square().mean().backward()
    optimizer = standard_optimizer(torch.optim.SGD, model.parameters(), {"lr": 0.1, "momentum": 0.9})
    model(next(batches)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = MLP()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    model(next(batches)).square().mean().backward()
    apply(torch.optim.SGD, model.parameters(), {"lr": 0.1, "momentum": 0.9})
    model(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


expected = standard_loop()
actual = in_backward()
for name, value in expected.items():
    assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{name}: {text}")
