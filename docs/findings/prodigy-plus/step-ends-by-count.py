"""gradients/two_losses (MUST): prodigy-plus diverges in case ProdigyPlusScheduleFree.

Two losses with a backward each are two steps, although both graphs were there before the first.

Observed: parameter 'left.weight' differs from the standard loop after event 4, BackwardThrough(forward=1): largest
difference 8.05e-06
"""

from functools import partial
from itertools import count

import torch
from prodigyplus import ProdigyPlusScheduleFree
from torch import nn


def step_and_free(optimizer, number, index, param):
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    optimizer = ProdigyPlusScheduleFree(params, fused_back_pass=True, **optimizer_kwargs)
    for number, group in enumerate(optimizer.param_groups):
        for index, param in filter(lambda indexed: indexed[1].requires_grad, enumerate(group["params"])):
            param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


class Branches(nn.Module):
    """A trunk and branches that a forward may skip."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(4, 5)
        self.left = nn.Linear(5, 3)
        self.right = nn.Linear(5, 3)

    def forward(self, features, skip=()):
        hidden = torch.tanh(self.trunk(features))
        taken = [branch for name, branch in (("left", self.left), ("right", self.right)) if name not in skip]
        return torch.stack([branch(hidden) for branch in taken]).sum(0)


def standard_loop():
    torch.manual_seed(0)
    model = Branches()
    batches = (torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = ProdigyPlusScheduleFree(model.parameters(), d0=1e-05, stochastic_rounding=False)
    loss_0 = model(next(batches), skip=("left",)).square().mean()
    loss_1 = model(next(batches), skip=("right",)).square().mean()
    loss_0.backward()
    optimizer.step()
    optimizer.zero_grad()
    loss_1.backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = Branches()
    batches = (torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    apply(ProdigyPlusScheduleFree, model.parameters(), {"d0": 1e-05, "stochastic_rounding": False})
    loss_0 = model(next(batches), skip=("left",)).square().mean()
    loss_1 = model(next(batches), skip=("right",)).square().mean()
    loss_0.backward()
    loss_1.backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    atol = 1e-05 * value.abs().max().item()
    torch.testing.assert_close(actual[name], value, rtol=0, atol=atol, equal_nan=True, msg=f"{name}: {{}}".format)
