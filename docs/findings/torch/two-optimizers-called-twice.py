"""multiple_optimizers/one_step_each (MUST): torch fails.

Each listed optimizer's `step()` runs once a backward for each of its parameters, as its step hooks count.

Observed: 6 calls of step() in 3 backwards, optimizer 0 of 12 listed
"""

from collections import Counter

import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward, _get_in_backward_optimizers


PLAIN_SGD = (torch.optim.SGD, {"lr": 0.01})


def parameters_of(optimizer):
    return {id(param) for group in optimizer.param_groups for param in group["params"]}


def one_step_each(device):
    optimizer_class, options = PLAIN_SGD
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(device)
    for _ in range(2):
        _apply_optimizer_in_backward(optimizer_class, model.parameters(), dict(options))
    calls = Counter()
    listed = _get_in_backward_optimizers(model)
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
