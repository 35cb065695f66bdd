"""lifetime/cast_before_training (MUST): torch diverges in case SGD-float64.

A model that is cast between attachment and its first backward, by `double()` or `to(dtype)`, is trained.

Observed: parameter '0.weight' differs from the standard loop after event 2, Backward(): largest difference 0.00264
"""

import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    model.to(torch.float64)
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).to(torch.float64)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    _apply_optimizer_in_backward(
        torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    )
    model.to(torch.float64)
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).to(torch.float64)).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
