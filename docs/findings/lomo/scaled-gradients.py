"""hazards/grad_scaler (MUST): lomo fails in case Lomo.

A loss that a `GradScaler` has scaled trains as in the standard loop, or its backward is refused.

Observed: an accident, not a refusal: event 2, ScaledBackward() raises AssertionError: No inf checks were recorded for
this optimizer.
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
    optimizer = standard_optimizer(Lomo, model.parameters(), {"lr": 0.1})
    model(next(batches)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    scaler.scale(model(next(batches)).square().mean()).backward()
    scaler.step(optimizer)
    scaler.update()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    attach(model, [(Lomo, model.parameters(), {"lr": 0.1}, True)])
    backward(model(next(batches)).square().mean(), model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    backward(scaler.scale(model(next(batches)).square().mean()), model)
    for optimizer in optimizers(model):
        scaler.step(optimizer)
    scaler.update()
    return dict(model.named_parameters())


expected = standard_loop()
try:
    actual = in_backward()
except (RuntimeError, TypeError, ValueError) as error:
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
else:
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
