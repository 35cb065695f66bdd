"""state/saved_parameter (MUST): torch fails.

A saved parameter is a plain one's file: no larger, of the same classes, and it loads with `weights_only`.

Observed: the saved file of parameter '0.weight' holds __builtin__.dict, collections.defaultdict,
torch._utils._rebuild_parameter_with_state, torch.optim.adam.Adam
"""

import io
import pickletools
import zipfile

import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward


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
    _apply_optimizer_in_backward(optimizer_class, model.parameters(), options)


def _loss(model):
    param = next(model.parameters())
    features = torch.linspace(-1, 1, 12, device=param.device).reshape(3, 4)
    return model(features).square().sum()


def _attached(device, assignment):
    return _trained(device, lambda model: _attach(model, assignment), lambda model: _loss(model).backward())


NOT_COMPARED_ADAM = (torch.optim.Adam, {"lr": 0.01})


def _plain(device):
    return _trained(device, lambda _: None, lambda _: None)


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


def saved_parameter(device):
    attached, plain = (_attached(device, NOT_COMPARED_ADAM), _plain(device))
    for (name, param), expected in zip(attached.named_parameters(), plain.parameters(), strict=True):
        file = _holds_nothing_more(param, expected, f"parameter {name!r}")
        loaded = torch.load(file, weights_only=True)
        assert torch.equal(loaded, param), f"parameter {name!r} loads with other values"


saved_parameter(device="cpu")
