"""state/resume (MUST): prodigy-plus diverges in case ProdigyPlusScheduleFree.

Saved in mid-training, loaded into a model that is built and attached anew, training goes on as if never stopped.

Observed: its optimizer class does not go on as if never stopped, in the standard loop either: optimizer state of
'0.weight' differs from the standard loop after event 8, Backward(): 'p0': dtype torch.float32, expected torch.bfloat16
"""

import io
import weakref
from functools import partial
from itertools import count

import torch
from prodigyplus import ProdigyPlusScheduleFree
from torch import nn


attached = weakref.WeakKeyDictionary()


def step_and_free(optimizer, number, index, param):
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    optimizer = ProdigyPlusScheduleFree(params, fused_back_pass=True, **optimizer_kwargs)
    attached[optimizer] = None
    for number, group in enumerate(optimizer.param_groups):
        for index, param in filter(lambda indexed: indexed[1].requires_grad, enumerate(group["params"])):
            param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


def params_of(optimizer):
    return [param for group in optimizer.param_groups for param in group["params"]]


def optimizers(module):
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(params_of(optimizer))]


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = ProdigyPlusScheduleFree(model.parameters(), d0=1e-05, stochastic_rounding=False)
    for _ in range(6):
        model(next(batches)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {
        name: [optimizer.state[param] for optimizer in [optimizer] if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    apply(ProdigyPlusScheduleFree, model.parameters(), {"d0": 1e-05, "stochastic_rounding": False})
    for _ in range(3):
        model(next(batches)).square().mean().backward()
    file = io.BytesIO()
    torch.save((model.state_dict(), [optimizer.state_dict() for optimizer in optimizers(model)]), file)
    with torch.random.fork_rng():
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    apply(ProdigyPlusScheduleFree, model.parameters(), {"d0": 1e-05, "stochastic_rounding": False})
    of_model, of_optimizers = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    model.load_state_dict(of_model)
    for optimizer, state in zip(optimizers(model), of_optimizers, strict=True):
        optimizer.load_state_dict(state)
    for _ in range(3):
        model(next(batches)).square().mean().backward()
    return {
        name: [optimizer.state[param] for optimizer in optimizers(model) if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


expected, actual = (standard_loop(), in_backward())
for name, states in expected.items():
    assert len(actual[name]) == len(states), f"{name}: there are {len(actual[name])} states, not {len(states)}"
    for state, other in zip(states, actual[name]):
        for key, value in state.items():
            atol, told = (1e-05 * torch.as_tensor(value).abs().max().item(), f"{name} {key}: ".__add__)
            torch.testing.assert_close(other[key], value, rtol=0, atol=atol, equal_nan=True, msg=told)
