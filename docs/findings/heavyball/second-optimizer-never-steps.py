"""multiple_optimizers/order_of_attachment (MUST): heavyball diverges in case any-another-class.

Optimizers of different classes step in the order of attachment: weight decay makes the order tell.

Observed: parameter '0.weight' differs from the standard loop after event 1, Backward(): largest difference 0.01
"""

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
    optimizers = [
        standard_optimizer(torch.optim.SGD, model.parameters(), {"lr": 0.03, "weight_decay": 0.1}),
        standard_optimizer(torch.optim.Adam, model.parameters(), {"lr": 0.01}),
    ]
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    apply(torch.optim.SGD, model.parameters(), {"lr": 0.03, "weight_decay": 0.1})
    apply(torch.optim.Adam, model.parameters(), {"lr": 0.01})
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
