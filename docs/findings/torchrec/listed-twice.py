"""sharing/listed_twice_with_state (MUST): torchrec diverges in case SGD-momentum.

A parameter listed twice, with an optimizer that keeps state: what torch gives for that list, or refused.

Observed: optimizer state of '0.weight' differs from the standard loop after event 1, Backward(): 2 optimizers hold a
state for it, expected 1
"""

import importlib.util
from pathlib import Path

import torch
from torch import nn


def file_of(name):
    package = importlib.util.find_spec("torchrec")
    spec = importlib.util.spec_from_file_location(name, Path(package.origin).parent / "optim" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    file_of("apply_optimizer_in_backward").apply_optimizer_in_backward(optimizer_class, params, optimizer_kwargs)


def optimizers(module):
    own = file_of("optimizers").in_backward_optimizer_filter(module.named_parameters(), include=True)
    return [optimizer for _, param in own for optimizer in param._in_backward_optimizers]


def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[0].weight = model[1].weight
    return model


def standard_loop():
    model = build()
    optimizer = torch.optim.SGD([model[0].weight, model[0].bias, model[1].weight], lr=0.1, momentum=0.9, foreach=False)
    model(torch.randn(4, 5, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return {
        name: [optimizer.state[param] for optimizer in [optimizer] if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


def in_backward():
    model = build()
    apply(
        torch.optim.SGD,
        [model[0].weight, model[0].bias, model[1].weight],
        {"lr": 0.1, "momentum": 0.9, "foreach": False},
    )
    model(torch.randn(4, 5, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return {
        name: [optimizer.state[param] for optimizer in optimizers(model) if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


expected = standard_loop()
try:
    actual = in_backward()
except (RuntimeError, TypeError, ValueError) as error:
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
else:
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
