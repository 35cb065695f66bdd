"""sharing/listed_twice (MUST): tutorial diverges.

A parameter listed twice in one call gives, with plain SGD, what `torch.optim.SGD` gives for that list.

Observed: parameter '0.weight' differs from the standard loop after event 1, Backward(): largest difference 0.0214
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
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[0].weight = model[1].weight
    return model


def standard_loop():
    model = build()
    optimizers = [
        torch.optim.SGD([model[0].weight, model[1].weight], lr=0.1, foreach=False),
        torch.optim.SGD([model[0].bias, model[1].bias], lr=0.05),
    ]
    model(torch.randn(4, 5, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    model = build()
    apply(torch.optim.SGD, [model[0].weight, model[1].weight], {"lr": 0.1, "foreach": False})
    apply(torch.optim.SGD, [model[0].bias, model[1].bias], {"lr": 0.05})
    model(torch.randn(4, 5, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
