"""listing/order (SHOULD): heavyball fails.

One optimizer a parameter and attachment is listed, in order of `module.parameters()`, then of attachment.

Observed: 2 optimizers hold 12 parameters
"""

import weakref

import heavyball.utils
import torch
from torch import nn


attached = weakref.WeakKeyDictionary()


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    heavyball.utils.compile_mode = None
    attached[heavyball.utils.fused_hook(params, optimizer_class, **optimizer_kwargs)] = None


def optimizers(module):
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(optimizer.param_groups[0]["params"])]


library_optimizers = optimizers
SGD = (torch.optim.SGD, {"lr": 0.1})


def order(device):
    optimizer_class, options = SGD
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(device)
    attached = []
    for _ in range(2):
        params = reversed(list(model.parameters()))
        apply(optimizer_class, params, dict(options))
        attached.append(library_optimizers(model))
    first, both = (list(map(id, optimizers)) for optimizers in attached)
    listed = [
        (id(param), id(optimizer) not in first)
        for optimizer in attached[-1]
        for group in optimizer.param_groups
        for param in group["params"]
    ]
    assert len(both) == len(listed), f"{len(both)} optimizers hold {len(listed)} parameters"
    expected = [(id(param), later) for param in model.parameters() for later in (False, True)]
    assert listed == expected, "listed in another order"


order(device="cpu")
