"""gradients/two_losses (MUST): optimi diverges in case AdamW.

Two losses with a backward each are two steps, although both graphs were there before the first.

Observed: parameter 'left.weight' differs from the standard loop after event 4, BackwardThrough(forward=1): largest
difference 0.00258
"""

import inspect
import weakref
from itertools import count

import optimi
import torch
from torch import nn


def make(optimizer_class, params, optimizer_kwargs, **release):
    own, of_torch = (getattr(optimi, optimizer_class.__name__), inspect.signature(optimizer_class).parameters)
    lacking = {*of_torch} - {*inspect.signature(own).parameters} | {"dampening"}
    return own(params, **{name: value for name, value in optimizer_kwargs.items() if name not in lacking}, **release)


standard_optimizer = make
prepared = weakref.WeakKeyDictionary()


def params_of(optimizer):
    return {param for group in optimizer.param_groups for param in group["params"]}


def optimizers(module):
    return [*dict.fromkeys(each for param in module.parameters() for each in prepared if param in params_of(each))]


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        optimizer = make(optimizer_class, params, optimizer_kwargs, gradient_release=True)
        modules = [part for part in module.modules() if params_of(optimizer) <= set(part.parameters())]
        smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
        optimi.prepare_for_gradient_release(smallest, optimizer, ignore_existing_hooks=not optimizers(smallest))
        prepared[optimizer] = None


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
    optimizer = standard_optimizer(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
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
    attach(model, [(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1}, True)])
    loss_0 = model(next(batches), skip=("left",)).square().mean()
    loss_1 = model(next(batches), skip=("right",)).square().mean()
    loss_0.backward()
    loss_1.backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
