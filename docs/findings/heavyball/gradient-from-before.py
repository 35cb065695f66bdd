"""gradients/from_before (MUST): heavyball fails in case SGD.

A gradient from before attachment counts where backward reaches the parameter: both are added, then stepped.

Observed: an accident, not a refusal: event 2, Backward() raises RuntimeError: one of the variables needed for gradient
computation has been modified by an inplace operation: [torch.FloatTensor [6, 6]], which is output 0 of AsStrided, is at
version 2; expected version 1 instead. Hint: enable anomaly detection to find the operation that failed to compute its
gradient, with torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

from itertools import count

import heavyball.utils
import torch
from torch import nn


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    heavyball.utils.compile_mode = None
    return optimizer_class(params, **optimizer_kwargs)


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    heavyball.utils.compile_mode = None
    heavyball.utils.fused_hook(params, optimizer_class, **optimizer_kwargs)


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    model(next(batches)).square().mean().backward()
    optimizer = standard_optimizer(torch.optim.SGD, model.parameters(), {"lr": 0.1, "momentum": 0.9})
    model(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    model(next(batches)).square().mean().backward()
    apply(torch.optim.SGD, model.parameters(), {"lr": 0.1, "momentum": 0.9})
    model(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
