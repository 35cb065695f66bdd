"""attachment/frozen (MUST): torchtitan fails in case floats.

Frozen parameters among those attached, also of integers, stay as they are, or are refused; the others train.

Observed: an accident, not a refusal: event 0, Attach() raises AssertionError: Must pass one optimizer per model part or
per param if using OptimizersInBackwardContainer.
"""

import weakref

import torch
from torch import nn
from torch.optim import AdamW
from torchtitan.components.optimizer import OptimizersInBackwardContainer


def part_of(module, given):
    own = {part: {id(param): param.requires_grad for param in part.parameters()} for part in module.modules()}
    fitting = [part for part in own if set(filter(own[part].get, own[part])) <= set(given) <= own[part].keys()]
    return min(fitting, key=lambda part: len(own[part]))


containers = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        part = part_of(module, list(map(id, params)))
        containers[part] = OptimizersInBackwardContainer([part], optimizer_class, optimizer_kwargs)
        containers[part].model_parts = weakref.WeakSet([part])


def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    model[0].bias.requires_grad_(False)
    model[2].weight.requires_grad_(False)
    return model


def standard_loop():
    model = build()
    optimizer = AdamW(model.parameters(), lr=0.1)
    return dict(model.named_parameters())


def in_backward():
    model = build()
    attach(model, [(AdamW, model.parameters(), {"lr": 0.1}, True)])
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
