"""listing/order (SHOULD): reference-handed fails.

One optimizer a parameter and attachment is listed, in order of `module.parameters()`, then of attachment.

Observed: 2 optimizers hold 12 parameters
"""

from contextlib import ExitStack, contextmanager

import inbackward
import torch
from torch import nn


@contextmanager
def accumulate(model):
    with ExitStack() as stack:
        for optimizer in inbackward.get_in_backward_optimizers(model):
            stack.enter_context(inbackward.handle_of(optimizer).accumulate())
        yield


SGD = (torch.optim.SGD, {"lr": 0.1})


def order(device):
    optimizer_class, options = SGD
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(device)
    attached = []
    for _ in range(2):
        params = reversed(list(model.parameters()))
        inbackward.step_in_backward(optimizer_class(params, **dict(options)))
        attached.append(inbackward.get_in_backward_optimizers(model))
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
