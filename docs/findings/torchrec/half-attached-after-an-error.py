"""attachment/after_a_failure (MUST): torchrec diverges.

After a rejected attachment a correct one works, as if the first had not been.

Observed: parameter '0.weight' differs from the standard loop after event 2, Backward(): largest difference 0.0177
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


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    try:
        optimizer = torch.optim.Muon([model[0].weight, model[2].weight, model[4].weight, model[4].bias], lr=0.02)
    except Exception:
        pass
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    try:
        apply(torch.optim.Muon, [model[0].weight, model[2].weight, model[4].weight, model[4].bias], {"lr": 0.02})
    except Exception:
        pass
    apply(torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9})
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
