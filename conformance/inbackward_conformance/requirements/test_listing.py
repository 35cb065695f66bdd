"""What is attached can be asked for: checkpoints and schedulers live on it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.catalogue.models import MLP, TwoLayers
from inbackward_conformance.plan import Assignment
from inbackward_conformance.plan.need import NOT_COMPARED

SGD = Assignment("SGD", {"lr": 0.1}, need=NOT_COMPARED)
ADAM = Assignment("Adam", {"lr": 0.1}, need=NOT_COMPARED)


def held(optimizers: list[torch.optim.Optimizer]) -> Counter[int]:
    """Count the parameters, by identity, that the groups of `optimizers` hold."""
    return Counter(
        id(param) for optimizer in optimizers for group in optimizer.param_groups for param in group["params"]
    )


@pytest.mark.must
@pytest.mark.parametrize("attachments", [1, 2])
def test_holds_every_parameter(implementation: Implementation, device: str, attachments: int) -> None:
    """The groups of the listed optimizers hold every attached parameter, the very object, once an attachment."""
    optimizer_class, options = bind(implementation, SGD)
    model = MLP().to(device)
    for _ in range(attachments):
        implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    found = held(implementation.optimizers(model))
    for name, param in model.named_parameters():
        times = found.pop(id(param), 0)
        assert times == attachments, f"{name} is held {times} times after {attachments} attachments"
    assert not found, f"{found.total()} of the parameters held are not the model's"


@pytest.mark.must
def test_same_each_time(implementation: Implementation, device: str) -> None:
    """The same optimizers, by identity and in the same order, are listed each time, after training too."""
    optimizer_class, options = bind(implementation, ADAM)
    model = MLP().to(device)
    implementation.attach(model, [(optimizer_class, model.parameters(), options, True)])
    before = implementation.optimizers(model)
    assert before, "nothing is listed after an attachment"
    implementation.backward(model(torch.randn(2, 4, device=device)).sum(), model)
    after = implementation.optimizers(model)
    assert list(map(id, before)) == list(map(id, after)), "a second listing gave other optimizers"


@pytest.mark.must
def test_shared_parameter_once(implementation: Implementation, device: str) -> None:
    """A shared parameter is held once, however many names it has."""
    optimizer_class, options = bind(implementation, SGD)
    model = TwoLayers().to(device)
    model[0].weight = model[1].weight
    implementation.attach(model, [(optimizer_class, model.parameters(), options, True)])
    times = held(implementation.optimizers(model))[id(model[0].weight)]
    assert times == 1, f"the shared weight is held {times} times"


@pytest.mark.must
def test_submodules(implementation: Implementation, device: str) -> None:
    """A submodule lists what its parameters belong to."""
    optimizer_class, options = bind(implementation, SGD)
    model = MLP().to(device)
    implementation.attach(model, [(optimizer_class, model.parameters(), options, True)])
    found = held(implementation.optimizers(model[0]))
    for name, param in model[0].named_parameters():
        assert found[id(param)] == 1, f"{name} of the submodule is held {found[id(param)]} times"
    of_model, of_submodule = implementation.optimizers(model), implementation.optimizers(model[0])
    assert set(map(id, of_model)) >= set(map(id, of_submodule)), "a submodule lists what its model does not"


@pytest.mark.must
def test_plain_module(implementation: Implementation, device: str) -> None:
    """A module to which nothing is attached lists nothing, beside one to which something is."""
    optimizer_class, options = bind(implementation, SGD)
    model = MLP().to(device)
    implementation.attach(model, [(optimizer_class, model.parameters(), options, True)])
    for plain in (MLP().to(device), nn.Identity()):
        listed = len(implementation.optimizers(plain))
        assert not listed, f"{listed} optimizers are listed for a plain {type(plain).__name__}"


@pytest.mark.should
def test_order(implementation: Implementation, device: str) -> None:
    """One optimizer a parameter and attachment is listed, in order of `module.parameters()`, then of attachment."""
    optimizer_class, options = bind(implementation, SGD)
    model = MLP().to(device)
    attached: list[list[torch.optim.Optimizer]] = []
    for _ in range(2):
        params = reversed(list(model.parameters()))
        implementation.attach(model, [(optimizer_class, params, dict(options), True)])
        attached.append(implementation.optimizers(model))
    first, both = (list(map(id, optimizers)) for optimizers in attached)
    listed = [
        (id(param), id(optimizer) not in first)
        for optimizer in attached[-1]
        for group in optimizer.param_groups
        for param in group["params"]
    ]
    assert len(both) == len(listed), f"{len(both)} optimizers hold {len(listed)} parameters"
    expected = [(id(param), later) for param in model.parameters() for later in (False, True)]
    assert listed == expected, "listed in another order"
