"""attachment/named_parameters (MUST): torch fails.

`model.named_parameters()` attaches as `model.parameters()` does, or is refused.

Observed: an accident, not a refusal: event 0, Attach() raises AttributeError: 'tuple' object has no attribute 'view_as'
"""

import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward
from torch.testing import assert_close


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
    _apply_optimizer_in_backward(torch.optim.Adam, model.named_parameters(), {"lr": 0.01})
    return dict(model.named_parameters())


expected = standard_loop()
actual = in_backward()
for name, value in expected.items():
    assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{name}: {text}")
