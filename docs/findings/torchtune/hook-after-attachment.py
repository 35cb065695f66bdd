"""gradients/dropped_by_hook (MUST): torchtune diverges in case after.

A parameter whose gradient a user's post-accumulate-grad hook has set to None is not stepped.

Observed: parameter '2.weight' differs from the standard loop after event 2, Backward(): largest difference 0.00682
"""

import torch
from torch import nn
from torchtune.training import register_optim_in_bwd_hooks


def attach(module, assignments):
    own = {}
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        for param in params:
            own[param] = optimizer_class([param], **optimizer_kwargs)
    modules = [part for part in module.modules() if own.keys() <= set(part.parameters())]
    smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
    register_optim_in_bwd_hooks(model=smallest, optim_dict=own)


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
    attach(model, [(torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}, True)])
    for param in [model[2].weight, model[4].bias]:
        param.register_post_accumulate_grad_hook(drop)
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
