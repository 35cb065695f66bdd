"""multiple_optimizers/one_step_each (MUST): torchrec fails.

Each listed optimizer's `step()` runs once a backward for each of its parameters, as its step hooks count.

Observed: 6 calls of step() in 3 backwards, optimizer 0 of 12 listed
"""

import importlib.util
from collections import Counter
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


PLAIN_SGD = (torch.optim.SGD, {"lr": 0.01})


def parameters_of(optimizer):
    return {id(param) for group in optimizer.param_groups for param in group["params"]}


def one_step_each(device):
    optimizer_class, options = PLAIN_SGD
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(device)
    for _ in range(2):
        apply(optimizer_class, model.parameters(), dict(options))
    calls = Counter()
    listed = optimizers(model)
    for number, optimizer in enumerate(listed):
        optimizer.register_step_post_hook(
            lambda stepped, *_, number=number: calls.update((number, each) for each in parameters_of(stepped))
        )
    backwards = 3
    for _ in range(backwards):
        model(torch.randn(2, 4, device=device)).sum().backward()
    for number, optimizer in enumerate(listed):
        for param in parameters_of(optimizer):
            assert calls[number, param] == backwards, (
                f"{calls[number, param]} calls of step() in {backwards} backwards, optimizer {number} of {len(listed)} listed"
            )


one_step_each(device="cpu")
