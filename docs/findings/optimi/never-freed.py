"""lifetime/rounds (MUST): optimi fails.

A hundred rounds of building a model, attaching, training and dropping it leave no object more.

Observed: 100 rounds of attaching to a model of two parameters and dropping it leave 600 Tensor, 200 Parameter, 100
AdamW, 800 OrderedDict
"""

import gc
import inspect
import weakref
from collections import Counter
from contextlib import contextmanager

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


TRAINED = (torch.optim.AdamW, {"lr": 0.01})


def _attach(model, *, hook=True):
    optimizer_class, options = TRAINED
    attach(model, [(optimizer_class, model.parameters(), options, hook)])


def _train(model, steps):
    device = next(model.parameters()).device
    for _ in range(steps):
        model(torch.ones(2, 4, device=device)).square().sum().backward()


@contextmanager
def gc_new_objects_only():
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


ROUNDS = 100


def rounds(device):

    def one_round():
        model = nn.Linear(4, 2, device=device)
        _attach(model)
        _train(model, 1)

    for _ in range(3):
        one_round()
    gc.collect()
    with gc_new_objects_only():
        for _ in range(ROUNDS):
            one_round()
        gc.collect()
        kept = Counter(map(type, gc.get_objects()))
    telling = [(kind, count) for kind, count in kept.most_common() if count >= ROUNDS]
    telling.sort(key=lambda item: not issubclass(item[0], torch.Tensor | torch.optim.Optimizer))
    left = ", ".join((f"{count} {kind.__name__}" for kind, count in telling[:4]))
    assert not left, f"{ROUNDS} rounds of attaching to a model of two parameters and dropping it leave {left}"


rounds(device="cpu")
