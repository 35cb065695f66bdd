"""schedule/tensor_lr (MUST): torchrec diverges in case ChainedScheduler.

A learning rate that is a tensor is scheduled like one that is a number.

Observed: parameter '0.weight' differs from the standard loop after event 2, Backward(): largest difference 0.000985
"""

import importlib.util
from pathlib import Path

import torch
from torch import nn
from torch.optim import lr_scheduler


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


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1), momentum=0.9, weight_decay=0.01)
    schedules = [
        lr_scheduler.ChainedScheduler(
            optimizer=optimizer,
            schedulers=[
                lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=3),
                lr_scheduler.ExponentialLR(optimizer, gamma=0.7),
            ],
        )
    ]
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    apply(torch.optim.SGD, model.parameters(), {"lr": torch.tensor(0.1), "momentum": 0.9, "weight_decay": 0.01})
    schedules = [
        lr_scheduler.ChainedScheduler(
            optimizer=optimizer,
            schedulers=[
                lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=3),
                lr_scheduler.ExponentialLR(optimizer, gamma=0.7),
            ],
        )
        for optimizer in optimizers(model)
    ]
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
