"""state/resume (MUST): prodigy-plus diverges in case ProdigyPlusScheduleFree.

Saved in mid-training, loaded into a model that is built and attached anew, training goes on as if never stopped.

Observed: its optimizer class does not go on as if never stopped, in the standard loop either: optimizer state of
'0.weight' differs from the standard loop after event 8, Backward(): 'p0': dtype torch.float32, expected torch.bfloat16
"""

import inspect
import io
import weakref
from functools import partial
from itertools import count

import torch
from prodigyplus import ProdigyPlusScheduleFree
from torch import nn
from torch.testing import assert_close


def params_of(optimizer):
    return [param for group in optimizer.param_groups for param in group["params"]]


attached = weakref.WeakKeyDictionary()


def step_and_free(optimizer, number, index, param):
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    optimizer = ProdigyPlusScheduleFree(params, fused_back_pass=True, **optimizer_kwargs)
    own = params_of(optimizer)
    attached[optimizer] = None
    for number, group in enumerate(optimizer.param_groups):
        for index, param in enumerate(group["params"]):
            if param.requires_grad:
                param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


def optimizers(module):
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(params_of(optimizer))]


class MLP(nn.Sequential):
    """Weights and biases, three layers."""

    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def leaves(value, path="", within=()):
    if isinstance(value, torch.Tensor):
        return {path: value}
    if id(value) in within or inspect.ismodule(value):
        return {}
    if isinstance(value, dict):
        parts = {f"[{key!r}]": part for key, part in value.items()}
    elif isinstance(value, list | tuple):
        parts = {f"[{number}]": part for number, part in enumerate(value)}
    else:
        names = [*getattr(value, "__dict__", ()), *getattr(value, "__slots__", ())]
        parts = {f".{name}": getattr(value, name) for name in names if hasattr(value, name)}
    inner = [leaves(part, path + place, (*within, id(value))) for place, part in parts.items()]
    return {path: leaf for each in inner for path, leaf in each.items()} if parts else {path: value}


def assert_alike(actual, expected, where, tolerance=0.0):
    actual, expected = (leaves(actual), leaves(expected))
    assert actual.keys() == expected.keys(), f"{where}: there are {list(actual)}, expected {list(expected)}"
    for path, value in expected.items():
        if isinstance(value, torch.Tensor | float | complex):
            number = torch.as_tensor(value)
            rounded = number.numel() and (number.is_floating_point() or number.is_complex())
            atol = tolerance * number.to_dense().abs().nan_to_num(0, 0).max().item() if tolerance and rounded else 0.0
            msg = f"{where}{path}: ".__add__
            assert_close(actual[path], value, rtol=0, atol=atol, equal_nan=True, msg=msg)
        elif value is None or isinstance(value, int | str):
            assert actual[path] == value, f"{where}{path}: {actual[path]!r}, expected {value!r}"


def standard_loop():
    torch.manual_seed(0)
    model = MLP()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = ProdigyPlusScheduleFree(model.parameters(), d0=1e-05, stochastic_rounding=False)
    for _ in range(6):
        model(next(batches)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {
        name: [optimizer.state[param] for optimizer in [optimizer] if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


def in_backward():
    torch.manual_seed(0)
    model = MLP()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    apply(ProdigyPlusScheduleFree, model.parameters(), {"d0": 1e-05, "stochastic_rounding": False})
    for _ in range(3):
        model(next(batches)).square().mean().backward()
    file = io.BytesIO()
    checkpoint = (model.state_dict(), [optimizer.state_dict() for optimizer in optimizers(model)])
    torch.save(checkpoint, file)
    with torch.random.fork_rng():
        model = MLP()
    apply(ProdigyPlusScheduleFree, model.parameters(), {"d0": 1e-05, "stochastic_rounding": False})
    file.seek(0)
    of_model, of_optimizers = torch.load(file, weights_only=False)
    model.load_state_dict(of_model)
    for optimizer, state in zip(optimizers(model), of_optimizers, strict=True):
        optimizer.load_state_dict(state)
    for _ in range(3):
        model(next(batches)).square().mean().backward()
    return {
        name: [optimizer.state[param] for optimizer in optimizers(model) if optimizer.state.get(param)]
        for name, param in model.named_parameters()
    }


expected = standard_loop()
actual = in_backward()
for name, value in expected.items():
    assert_alike(actual[name], value, name, 1e-05)
