"""lifetime/rounds (MUST): adv-optm fails.

A hundred rounds of building a model, attaching, training and dropping it leave no object more.

Observed: 100 rounds of attaching to a model of two parameters and dropping it leave 400 Tensor, 200 Parameter, 100
AdamW_adv, 800 OrderedDict
"""

import gc
import weakref
from collections import Counter
from contextlib import contextmanager
from functools import partial

import torch
from adv_optm import AdamW_adv
from torch import nn


attached = weakref.WeakKeyDictionary()


def step_and_free(optimizer, number, index, param):
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    optimizer = optimizer_class(params, **optimizer_kwargs)
    attached[optimizer] = None
    for number, group in enumerate(optimizer.param_groups):
        for index, param in filter(lambda indexed: indexed[1].requires_grad, enumerate(group["params"])):
            param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


def params_of(optimizer):
    return [param for group in optimizer.param_groups for param in group["params"]]


def optimizers(module):
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(params_of(optimizer))]


def backward(loss, module, **kwargs):
    loss.backward(**kwargs)
    for optimizer in optimizers(module):
        optimizer.step()
        optimizer.zero_grad()


TRAINED = (AdamW_adv, {"lr": 0.01, "stochastic_rounding": False})


def _attach(model, *, hook=True):
    optimizer_class, options = TRAINED
    apply(optimizer_class, model.parameters(), options, register_hook=hook)


def _train(model, steps):
    device = next(model.parameters()).device
    for _ in range(steps):
        backward(model(torch.ones(2, 4, device=device)).square().sum(), model)


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
