"""multiple_optimizers/own_state (MUST): torchtune fails.

Each of a parameter's optimizers keeps its own state: no tensor of it is another's.

Observed: the listed optimizers hold 18 state tensors, expected 36
"""

import copyreg
import inspect
import weakref
from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from types import ModuleType

import torch
from torch import Tensor, nn
from torchtune.training import register_optim_in_bwd_hooks


attached = weakref.WeakKeyDictionary()


def attach(module, assignments):
    own = {}
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        for param in params:
            own[param] = optimizer_class([param], **optimizer_kwargs)
    modules = [part for part in module.modules() if own.keys() <= set(part.parameters())]
    smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
    register_optim_in_bwd_hooks(model=smallest, optim_dict=own)
    attached.update(dict.fromkeys(own.values()))


def optimizers(module):
    held = [(optimizer, optimizer.param_groups[0]["params"][0]) for optimizer in attached]
    return [optimizer for param in module.parameters() for optimizer, its_param in held if its_param is param]


ADAM_WITH_STATE = (torch.optim.Adam, {"lr": 0.01})


def object_state(value):
    if hasattr(object, "__getstate__"):
        return object.__getstate__(value)
    attributes = getattr(value, "__dict__", None) or None
    names = copyreg._slotnames(type(value))
    slots = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return (attributes, slots) if slots else attributes


NUMBERS_AND_TEXT = (type(None), bool, int, float, complex, str, bytes)
NAMED = (type, ModuleType, Enum, torch.dtype, torch.device, torch.layout, torch.memory_format)


def _parts(value):
    if isinstance(value, (*NUMBERS_AND_TEXT, *NAMED, Tensor)) or inspect.isroutine(value):
        return []
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", part) for key, part in value.items()]
    if isinstance(value, list | tuple | deque):
        return [(f"[{number}]", part) for number, part in enumerate(value)]
    if isinstance(value, AbstractSet):
        return [(f"{{{part!r}}}", part) for part in value]
    state = object_state(value)
    dictionaries = state if isinstance(state, tuple) else (state,)
    return [(f".{name}", part) for each in dictionaries if each for name, part in each.items()]


def tensors_in(value):
    seen = {}
    left = [value]
    while left:
        each = left.pop()
        if id(each) not in seen:
            seen[id(each)] = each
            left += [part for _, part in reversed(_parts(each))]
    return [each for each in seen.values() if isinstance(each, Tensor)]


def _state_tensors(listed, model):
    params = set(map(id, model.parameters()))
    return [
        (f"{key} of {name}", id(tensor))
        for optimizer in listed
        for name, param in model.named_parameters()
        if param in optimizer.state
        for key, value in optimizer.state[param].items()
        for tensor in tensors_in(value)
        if id(tensor) not in params
    ]


def own_state(device):
    optimizer_class, options = ADAM_WITH_STATE
    model, ordinary_model = (
        nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(device),
        nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(device),
    )
    features = torch.randn(2, 4, device=device)
    for _ in range(2):
        attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    model(features).sum().backward()
    held = _state_tensors(optimizers(model), model)
    ordinary = optimizer_class(ordinary_model.parameters(), **dict(options))
    ordinary_model(features).sum().backward()
    ordinary.step()
    expected = 2 * len(_state_tensors([ordinary], ordinary_model))
    assert len(held) == expected, f"the listed optimizers hold {len(held)} state tensors, expected {expected}"
    shared = [name for name, identity in held if sum((identity == other for _, other in held)) > 1]
    assert not shared, f"optimizers share state tensors: {shared[0]}"


own_state(device="cpu")
