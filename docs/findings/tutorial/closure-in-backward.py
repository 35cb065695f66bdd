"""equivalence/closure (MUST): tutorial fails.

An optimizer that needs a closure (LBFGS) trains as in the standard loop, or is refused at attachment.

Observed: an accident, not a refusal: event 1, Backward() raises TypeError: LBFGS.step() missing 1 required positional
argument: 'closure'
"""

import sys

import torch
from torch import nn


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    optimizer_dict = {param: optimizer_class([param], **optimizer_kwargs) for param in params}

    def optimizer_hook(param):
        optimizer_dict[param].step()
        optimizer_dict[param].zero_grad()

    for param, optimizer in optimizer_dict.items():
        param.register_post_accumulate_grad_hook(optimizer_hook)


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    batch = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    model(batch).square().mean().backward()

    def closure():
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    try:
        apply(torch.optim.LBFGS, model.parameters(), {"lr": 0.1, "max_iter": 4})
    except (RuntimeError, TypeError, ValueError) as error:
        print(f"refused, which passes as well: {type(error).__name__}: {error}")
        sys.exit()
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
