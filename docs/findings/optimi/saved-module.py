"""state/saved_module (MUST): optimi fails.

A module saved as a whole is a plain model's file: no larger, of the same classes.

Observed: the saved file of the module holds __builtin__.dict, collections.defaultdict, functools.partial,
optimi.adam.Adam, optimi.gradientrelease._gradient_release_hook, torch.IntStorage, torch.utils.hooks.RemovableHandle
"""

import inspect
import io
import pickletools
import weakref
import zipfile

import optimi
import torch
from torch import nn


prepared = weakref.WeakKeyDictionary()


def params_of(optimizer):
    return {param for group in optimizer.param_groups for param in group["params"]}


def optimizers(module):
    return [*dict.fromkeys(each for param in module.parameters() for each in prepared if param in params_of(each))]


def make(optimizer_class, params, optimizer_kwargs, **release):
    own, of_torch = (getattr(optimi, optimizer_class.__name__), inspect.signature(optimizer_class).parameters)
    lacking = {*of_torch} - {*inspect.signature(own).parameters} | {"dampening"}
    return own(params, **{name: value for name, value in optimizer_kwargs.items() if name not in lacking}, **release)


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        optimizer = make(optimizer_class, params, optimizer_kwargs, gradient_release=True)
        modules = [part for part in module.modules() if params_of(optimizer) <= set(part.parameters())]
        smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
        optimi.prepare_for_gradient_release(smallest, optimizer, ignore_existing_hooks=not optimizers(smallest))
        prepared[optimizer] = None


library_attach = attach


def _trained(device, attach, backward):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(device)
    attach(model)
    for _ in range(3):
        backward(model)
    return model


def _attach(model, assignment):
    optimizer_class, options = assignment
    library_attach(model, [(optimizer_class, model.parameters(), options, True)])


def _loss(model):
    param = next(model.parameters())
    features = torch.linspace(-1, 1, 12, device=param.device).reshape(3, 4)
    return model(features).square().sum()


def _attached(device, assignment):
    return _trained(device, lambda model: _attach(model, assignment), lambda model: _loss(model).backward())


NOT_COMPARED_ADAM = (torch.optim.Adam, {"lr": 0.01})


def _names_in(file):
    with zipfile.ZipFile(file) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    return {str(value).replace(" ", ".") for opcode, value, _ in pickletools.genops(pickled) if opcode.name == "GLOBAL"}


def _holds_nothing_more(attached, plain, what):
    file, expected = (io.BytesIO(), io.BytesIO())
    torch.save(attached, file)
    torch.save(plain, expected)
    more = _names_in(file) - _names_in(expected)
    assert not more, f"the saved file of {what} holds {', '.join(sorted(more))}"
    size, plain_size = (len(file.getvalue()), len(expected.getvalue()))
    assert size <= plain_size, f"the saved file of {what} has {size} bytes, and {plain_size} without attachment"
    file.seek(0)
    return file


def _plain(device):
    return _trained(device, lambda _: None, lambda _: None)


def saved_module(device):
    attached = _attached(device, NOT_COMPARED_ADAM)
    file = _holds_nothing_more(attached, _plain(device), "the module")
    loaded = torch.load(file, weights_only=False)
    assert optimizers(loaded) == [], "something is attached to the module that was loaded"
    _loss(loaded).backward()
    for (name, param), original in zip(loaded.named_parameters(), attached.parameters(), strict=True):
        assert torch.equal(param, original), f"{name} of the module that was loaded is stepped inside backward"
        assert param.grad is not None, f"{name} of the module that was loaded loses its gradient"


saved_module(device="cpu")
