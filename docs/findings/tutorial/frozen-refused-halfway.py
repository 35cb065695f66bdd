"""attachment/frozen (MUST): tutorial fails in case floats.

Frozen parameters among those attached, also of integers, stay as they are, or are refused; the others train.

Observed: refused, but the next backward changes 0.weight: event 0, Attach() raises RuntimeError: cannot register a hook
on a tensor that doesn't require gradient
"""

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


def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    model[0].bias.requires_grad_(False)
    model[2].weight.requires_grad_(False)
    return model


def standard_loop():
    model = build()
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


def in_backward():
    model = build()
    try:
        apply(torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9})
    except (RuntimeError, TypeError, ValueError) as error:
        print(f"refused: {type(error).__name__}: {error}")
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
