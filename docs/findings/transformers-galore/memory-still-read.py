"""hazards/detached_use (MUST): transformers-galore fails in case DetachedUse.

A parameter that the graph uses as a constant too (`detach()`, `.data`) keeps its value until that use is done.

Observed: an accident, not a refusal: event 1, Backward() raises RuntimeError: one of the variables needed for gradient
computation has been modified by an inplace operation: [torch.FloatTensor [5, 5]] is at version 1; expected version 0
instead. Hint: enable anomaly detection to find the operation that failed to compute its gradient, with
torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

import gc
import weakref

import torch
from galore_torch import GaLoreAdamW
from torch import nn
from transformers import Trainer, TrainingArguments


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


class DetachedUse(nn.Module):
    """A weight that is trained in one place, and a constant in an earlier one, whose backward comes later."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.weight = nn.Parameter(torch.randn(5, 5) / 2)

    def constant(self, features):
        return features @ self.weight.detach()

    def forward(self, features):
        return torch.tanh(self.constant(torch.tanh(self.first(features)))) @ self.weight


def standard_loop():
    torch.manual_seed(0)
    model = DetachedUse()
    optimizer = standard_optimizer(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2})
    model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = DetachedUse()
    attach(model, [(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2}, True)])
    model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected = standard_loop()
try:
    actual = in_backward()
except (RuntimeError, TypeError, ValueError) as error:
    if "one of the variables needed for gradient" in str(error):
        raise
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
else:
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
