"""hazards/grad_scaler (MUST): torch fails in case SGD.

A loss that a `GradScaler` has scaled trains as in the standard loop, or its backward is refused.

Observed: an accident, not a refusal: event 2, ScaledBackward() raises AssertionError: No inf checks were recorded for
this optimizer.
"""

from itertools import count

import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward, _get_in_backward_optimizers


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model(next(batches)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    scaler.scale(model(next(batches)).square().mean()).backward()
    scaler.step(optimizer)
    scaler.update()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    _apply_optimizer_in_backward(torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9})
    model(next(batches)).square().mean().backward()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    scaler.scale(model(next(batches)).square().mean()).backward()
    for optimizer in _get_in_backward_optimizers(model):
        scaler.step(optimizer)
    scaler.update()
    return dict(model.named_parameters())


expected = standard_loop()
try:
    actual = in_backward()
except (RuntimeError, TypeError, ValueError) as error:
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
else:
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
