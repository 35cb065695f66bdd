"""state/roll_back (MUST): torchtitan diverges in case AdamW.

An earlier checkpoint that is loaded into the model in training takes it back to where it was.

Observed: optimizer state of '0.bias' differs from the standard loop after event 5, Load(rebuild=False): 'exp_avg':
largest difference 0.00126
"""

import io
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


def state_dict(module):
    return [containers[part].state_dict() for part in module.modules() if part in containers]


def load_state_dict(module, state):
    for part, saved in zip([part for part in module.modules() if part in containers], state, strict=True):
        containers[part].load_state_dict(saved)


def optimizers(module):
    held = {optimizer.param_groups[0]["params"][0]: optimizer for each in containers.values() for optimizer in each}
    return [held[param] for param in module.parameters() if param in held]


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = AdamW(model.parameters(), lr=0.1)
    model(next(batches)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    file = io.BytesIO()
    torch.save((model.state_dict(), [optimizer.state_dict()]), file)
    for _ in range(2):
        model(next(batches)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    of_model, of_optimizers = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    model.load_state_dict(of_model)
    optimizer.load_state_dict(of_optimizers[0])
    return {
        name: [optimizer.state[param] for optimizer in [optimizer] if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    attach(model, [(AdamW, model.parameters(), {"lr": 0.1}, True)])
    model(next(batches)).square().mean().backward()
    file = io.BytesIO()
    torch.save((model.state_dict(), state_dict(model)), file)
    for _ in range(2):
        model(next(batches)).square().mean().backward()
    of_model, of_optimizers = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    model.load_state_dict(of_model)
    load_state_dict(model, of_optimizers)
    return {
        name: [optimizer.state[param] for optimizer in optimizers(model) if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
