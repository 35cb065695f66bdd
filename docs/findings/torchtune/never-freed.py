"""lifetime/rounds (MUST): torchtune fails.

A hundred rounds of building a model, attaching, training and dropping it leave no object more.

Observed: 100 rounds of attaching to a model of two parameters and dropping it leave 600 Tensor, 200 AdamW, 200
Parameter, 1400 OrderedDict
"""

import gc
from collections import Counter
from contextlib import contextmanager

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
