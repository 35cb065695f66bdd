"""equivalence/every_configuration (MUST): heavyball diverges in case LaProp.

Every public class of `torch.optim`, in every configuration that it offers, trains as in the standard loop.

Observed: parameter '0.weight' differs from the standard loop after event 1, Backward(): largest difference 0.00484
"""

import heavyball.utils
import torch
from heavyball import LaProp
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
    optimizer = standard_optimizer(LaProp, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    apply(LaProp, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
