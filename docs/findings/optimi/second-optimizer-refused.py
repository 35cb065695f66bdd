"""listing/holds_every_parameter (MUST): optimi fails in case 2.

The groups of the listed optimizers hold every attached parameter, the very object, once an attachment.

Observed: attach raises ValueError: Model already has post_accumulate_grad_hooks. If this is expected, rerun with
`ignore_existing_hooks=True`.
"""

import inspect
import weakref
from collections import Counter

import optimi
import torch
from torch import nn


def make(optimizer_class, params, optimizer_kwargs, **release):
    own, of_torch = (getattr(optimi, optimizer_class.__name__), inspect.signature(optimizer_class).parameters)
    lacking = {*of_torch} - {*inspect.signature(own).parameters} | {"dampening"}
    return own(params, **{name: value for name, value in optimizer_kwargs.items() if name not in lacking}, **release)


prepared = weakref.WeakKeyDictionary()


def params_of(optimizer):
    return {param for group in optimizer.param_groups for param in group["params"]}


def optimizers(module):
    return [*dict.fromkeys(each for param in module.parameters() for each in prepared if param in params_of(each))]


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        optimizer = make(optimizer_class, params, optimizer_kwargs, gradient_release=True)
        modules = [part for part in module.modules() if params_of(optimizer) <= set(part.parameters())]
        smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
        optimi.prepare_for_gradient_release(smallest, optimizer, ignore_existing_hooks=not optimizers(smallest))
        prepared[optimizer] = None


library_optimizers = optimizers
SGD = (torch.optim.SGD, {"lr": 0.1})


def held(optimizers):
    return Counter(
        id(param) for optimizer in optimizers for group in optimizer.param_groups for param in group["params"]
    )


def holds_every_parameter(device, attachments):
    optimizer_class, options = SGD
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(device)
    for _ in range(attachments):
        attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    found = held(library_optimizers(model))
    for name, param in model.named_parameters():
        times = found.pop(id(param), 0)
        assert times == attachments, f"{name} is held {times} times after {attachments} attachments"
    assert not found, f"{found.total()} of the parameters held are not the model's"


holds_every_parameter(attachments=2, device="cpu")
