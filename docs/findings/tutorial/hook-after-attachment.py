"""gradients/dropped_by_hook (MUST): tutorial diverges in case after.

A parameter whose gradient a user's post-accumulate-grad hook has set to None is not stepped.

Observed: parameter '2.weight' differs from the standard loop after event 2, Backward(): largest difference 0.00682
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


def drop(param):
    param.grad = None


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    for param in [model[2].weight, model[4].bias]:
        param.register_post_accumulate_grad_hook(drop)
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    apply(torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
    for param in [model[2].weight, model[4].bias]:
        param.register_post_accumulate_grad_hook(drop)
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
