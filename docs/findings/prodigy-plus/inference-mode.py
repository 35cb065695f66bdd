"""hazards/grad_mode (MUST): prodigy-plus fails in case ProdigyPlusScheduleFree-inference_mode.

Backward inside `torch.inference_mode()` or `torch.no_grad()`, as in evaluation code, trains as anywhere else.

Observed: an accident, not a refusal: event 2, Backward() raises RuntimeError: Inplace update to inference tensor
outside InferenceMode is not allowed.You can make a clone to get a normal tensor before doing inplace update.See
https://github.com/pytorch/rfcs/pull/17 for more details.
"""

from functools import partial
from itertools import count

import torch
from prodigyplus import ProdigyPlusScheduleFree
from torch import nn


def step_and_free(optimizer, number, index, param):
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    optimizer = ProdigyPlusScheduleFree(params, fused_back_pass=True, **optimizer_kwargs)
    for number, group in enumerate(optimizer.param_groups):
        for index, param in filter(lambda indexed: indexed[1].requires_grad, enumerate(group["params"])):
            param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = ProdigyPlusScheduleFree(model.parameters(), d0=1e-05, stochastic_rounding=False)
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
    apply(ProdigyPlusScheduleFree, model.parameters(), {"d0": 1e-05, "stochastic_rounding": False})
    loss = model(next(batches)).square().mean()
    with torch.inference_mode():
        loss.backward()
    model(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    atol = 1e-05 * value.abs().max().item()
    torch.testing.assert_close(actual[name], value, rtol=0, atol=atol, equal_nan=True, msg=f"{name}: {{}}".format)
