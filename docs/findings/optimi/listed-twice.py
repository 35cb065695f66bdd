"""properties/repeated_listings (MUST): optimi diverges.

Parameters listed twice train as an ordinary optimizer trains that list, or are refused.

Observed: parameter 'offset' differs from the standard loop after event 1, Backward(): largest difference 0.165; drawn:
Plan('LayerGraph', (Assignment('SGD', options={'lr': 0.1, 'foreach': False}, params=('offset', 'offset')),),
(Backward(),))
"""

import inspect
import sys
import weakref

import optimi
import torch
from torch import nn
from torch.testing import assert_close


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


class Gain(nn.Module):
    """One factor: a 0-dim parameter."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.randn(()))

    def forward(self, features):
        return features * self.factor


class LayerGraph(nn.Module):
    """Layers of width 3, called one after the other, and an offset that is added to what the last call gives."""

    def __init__(self, calls=()):
        super().__init__()
        kinds = {"linear": lambda: nn.Linear(3, 3), "norm": lambda: nn.LayerNorm(3), "gain": Gain}
        for name in dict.fromkeys((name for name, _ in calls)):
            self.add_module(name, kinds[name.rstrip("0123456789")]())
        self.offset = nn.Parameter(torch.randn(3))
        self.calls = calls

    def forward(self, features, skip=()):
        values = [features]
        for name, inputs in self.calls:
            given = torch.stack([values[index] for index in inputs]).sum(0)
            values.append(given if name in skip else torch.tanh(self.get_submodule(name)(given)))
        return values[-1] + self.offset


def standard_loop():
    torch.manual_seed(0)
    model = LayerGraph()
    optimizer = standard_optimizer(torch.optim.SGD, [model.offset, model.offset], {"lr": 0.1, "foreach": False})
    model(torch.randn(4, 3, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = LayerGraph()
    attach(model, [(torch.optim.SGD, [model.offset, model.offset], {"lr": 0.1, "foreach": False}, True)])
    model(torch.randn(4, 3, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected = standard_loop()
try:
    actual = in_backward()
except (RuntimeError, TypeError, ValueError) as error:
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
    sys.exit()
for name, value in expected.items():
    assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{name}: {text}")
