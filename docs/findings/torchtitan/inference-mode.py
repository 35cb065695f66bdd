"""hazards/grad_mode (MUST): torchtitan fails in case AdamW-inference_mode.

Backward inside `torch.inference_mode()` or `torch.no_grad()`, as in evaluation code, trains as anywhere else.

Observed: an accident, not a refusal: event 2, Backward() raises RuntimeError: Inplace update to inference tensor
outside InferenceMode is not allowed.You can make a clone to get a normal tensor before doing inplace update.See
https://github.com/pytorch/rfcs/pull/17 for more details.
"""

import weakref
from itertools import count

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


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = AdamW(model.parameters(), lr=0.1)
    loss = model(next(batches)).square().mean()
    with torch.inference_mode():
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    model(next(batches)).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    attach(model, [(AdamW, model.parameters(), {"lr": 0.1}, True)])
    loss = model(next(batches)).square().mean()
    with torch.inference_mode():
        loss.backward()
    model(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
