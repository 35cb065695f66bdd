"""gradients/from_before (MUST): lomo diverges in case Lomo.

A gradient from before attachment counts where backward reaches the parameter: both are added, then stepped.

Observed: parameter '0.weight' differs from the standard loop after event 2, Backward(): largest difference 0.000231
"""

import weakref
from itertools import count

import torch
from lomo_optim import Lomo
from torch import nn


class Stepped(Lomo):
    """A Lomo without hooks, since its parameters require no gradient while it is made: it is stepped by hand."""

    def __init__(self, params, **options):
        params = torch.nn.ParameterList(params)
        required = [param.requires_grad for param in params]
        super().__init__(params.requires_grad_(requires_grad=False), **options)
        for param, requires_grad in zip(params, required, strict=True):
            param.requires_grad_(requires_grad)

    def step(self, closure=None):
        self.lr = self.param_groups[0]["lr"]
        self.grad_func(0)


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    return Stepped(params, **optimizer_kwargs)


made = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, given, optimizer_kwargs, register_hook in assignments:
        params = list(map(id, given))
        parts = [part for part in module.modules() if {*map(id, part.parameters())} == {*params}]
        made[Lomo(parts[0], **optimizer_kwargs)] = None


def optimizers(module):
    parts, params = ({*module.modules()}, {*module.parameters()})
    return [each for each in made if each.model in parts or params & {*each.param_groups[0]["params"]}]


def backward(loss, module, **kwargs):
    attached = optimizers(module)
    for optimizer in attached:
        optimizer.fused_backward(loss, optimizer.param_groups[0]["lr"])
    if not attached:
        loss.backward(**kwargs)


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    model(next(batches)).square().mean().backward()
    optimizer = standard_optimizer(Lomo, model.parameters(), {"lr": 0.1})
    model(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    model(next(batches)).square().mean().backward()
    attach(model, [(Lomo, model.parameters(), {"lr": 0.1}, True)])
    backward(model(next(batches)).square().mean(), model)
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
