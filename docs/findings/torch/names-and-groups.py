"""attachment/named_parameters (MUST): torch fails.

`model.named_parameters()` attaches as `model.parameters()` does, or is refused.

Observed: an accident, not a refusal: event 0, Attach() raises AttributeError: 'tuple' object has no attribute 'view_as'
"""

import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = torch.optim.Adam(model.named_parameters(), lr=0.01)
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    _apply_optimizer_in_backward(torch.optim.Adam, model.named_parameters(), {"lr": 0.01})
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
