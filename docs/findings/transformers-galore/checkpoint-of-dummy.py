"""state/roll_back (MUST): transformers-galore diverges in case GaLoreAdamW.

An earlier checkpoint that is loaded into the model in training takes it back to where it was.

Observed: optimizer state of '0.weight' differs from the standard loop after event 5, Load(rebuild=False): 'exp_avg':
largest difference 0.00675
"""

import gc
import io
import weakref
from itertools import count

import torch
from galore_torch import GaLoreAdamW
from torch import nn
from transformers import Trainer, TrainingArguments


def state_of(optimizer, param):
    return {key: getattr(value, "ortho_matrix", value) for key, value in optimizer.state[param].items()}


def model_of(params, modules):
    return next((module for module in modules if params == set(module.parameters())), None)


def make(optim, model, lr, **options):
    optim_args = ",".join((f"{name}={value}" for name, value in options.items()))
    args = TrainingArguments(optim=optim, optim_args=optim_args, optim_target_modules="all-linear", learning_rate=lr)
    optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    params = kwargs.pop("params")
    return optimizer_class(kwargs.pop("optimizer_dict", params), **kwargs)


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    objects = (each for generation in range(3) for each in gc.get_objects(generation))
    model = model_of((params := set(params)), (each for each in objects if issubclass(type(each), torch.nn.Module)))
    return make("galore_adamw", model, **optimizer_kwargs) if model else optimizer_class(params, optimizer_kwargs["lr"])


made = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        model = model_of(set(params), module.modules())
        made.setdefault(model, []).append(make("galore_adamw_layerwise", model, **optimizer_kwargs))


def dummies(module):
    return [one for each in made.values() for one in each if set(one.optimizer_dict) & set(module.parameters())]


def state_dict(module):
    return [dummy.state_dict() for dummy in dummies(module)]


def load_state_dict(module, state):
    for dummy, saved in zip(dummies(module), state, strict=True):
        dummy.load_state_dict(saved)


def optimizers(module):
    return [d.optimizer_dict[p] for p in module.parameters() for d in dummies(module) if p in d.optimizer_dict]


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = standard_optimizer(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2})
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
        name: [state_of(optimizer, param) for optimizer in [optimizer] if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    attach(model, [(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2}, True)])
    model(next(batches)).square().mean().backward()
    file = io.BytesIO()
    torch.save((model.state_dict(), state_dict(model)), file)
    for _ in range(2):
        model(next(batches)).square().mean().backward()
    of_model, of_optimizers = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    model.load_state_dict(of_model)
    load_state_dict(model, of_optimizers)
    return {
        name: [state_of(optimizer, param) for optimizer in optimizers(model) if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
