"""lifetime/rounds (MUST): transformers-galore fails.

A hundred rounds of building a model, attaching, training and dropping it leave no object more.

Observed: 100 rounds of attaching to a model of two parameters and dropping it leave 400 Tensor, 200 AdamW, 200
Parameter, 1400 OrderedDict
"""

import gc
import weakref
from collections import Counter
from contextlib import contextmanager

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


made = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        model = model_of(set(params), module.modules())
        made.setdefault(model, []).append(make("galore_adamw_layerwise", model, **optimizer_kwargs))


TRAINED = (GaLoreAdamW, {"lr": 0.01, "rank": 2, "update_proj_gap": 2})


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
