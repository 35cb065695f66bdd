"""hazards/grad_mode (MUST): torchtune fails in case SGD-inference_mode.

Backward inside `torch.inference_mode()` or `torch.no_grad()`, as in evaluation code, trains as anywhere else.

Observed: an accident, not a refusal: event 2, Backward() raises RuntimeError: Inplace update to inference tensor
outside InferenceMode is not allowed.You can make a clone to get a normal tensor before doing inplace update.See
https://github.com/pytorch/rfcs/pull/17 for more details.
"""

from itertools import count

import torch
from torch import nn
from torchtune.training import register_optim_in_bwd_hooks


def attach(module, assignments):
    own = {}
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        for param in params:
            own[param] = optimizer_class([param], **optimizer_kwargs)
    modules = [part for part in module.modules() if own.keys() <= set(part.parameters())]
    smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
    register_optim_in_bwd_hooks(model=smallest, optim_dict=own)


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
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
    attach(model, [(torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9}, True)])
    loss = model(next(batches)).square().mean()
    with torch.inference_mode():
        loss.backward()
    model(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
