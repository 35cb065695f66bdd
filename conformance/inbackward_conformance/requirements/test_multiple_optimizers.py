"""Several optimizers on one parameter: each steps once a backward, in the order of attachment."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.catalogue.models import MLP
from inbackward_conformance.checking.check import Check
from inbackward_conformance.outcome import NotOffered
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward
from inbackward_conformance.plan.need import ANOTHER_CLASS, NOT_COMPARED, SAME_CLASS, STATE
from inbackward_conformance.plugin.optimizer_cases import optimizers
from inbackward_conformance.training.standard_loop import parameters_of
from inbackward_conformance.values import tensors_in

SIX_STEPS = (Backward(),) * 6
SGD = Assignment("SGD", {"lr": 0.03, "weight_decay": 0.1})
ADAM = Assignment("Adam", {"lr": 0.01})
SLOW_SGD = Assignment("SGD", {"lr": 0.01, "momentum": 0.9}, need=SAME_CLASS)
QUICK_ADAM = Assignment("Adam", {"lr": 0.03, "betas": (0.8, 0.9)}, need=SAME_CLASS)
ADAM_AGAIN = replace(ADAM, need=SAME_CLASS)
PLAIN_SGD = Assignment("SGD", {"lr": 0.01}, need=NOT_COMPARED)
ADAM_WITH_STATE = replace(ADAM, need=STATE)
RMSPROP = Assignment("RMSprop", {"lr": 0.01, "momentum": 0.9})


def _of_different_classes(first: Assignment, *others: Assignment) -> tuple[Assignment, ...]:
    return (first, *(replace(other, need=ANOTHER_CLASS) for other in others))


@pytest.mark.must
@optimizers("assignments", [(SGD, SLOW_SGD), (ADAM, QUICK_ADAM), (ADAM, QUICK_ADAM, ADAM_AGAIN)])
def test_same_class(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """Two or three optimizers of one class, with different options, each step every parameter once a backward."""
    check(Plan("MLP", assignments, SIX_STEPS))


@pytest.mark.must
@optimizers(
    "assignments",
    [_of_different_classes(*those) for those in ((SGD, ADAM), (ADAM, SGD), (RMSPROP, SGD, ADAM), (SGD, ADAM, RMSPROP))],
)
def test_order_of_attachment(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """Optimizers of different classes step in the order of attachment: weight decay makes the order tell."""
    check(Plan("MLP", assignments, SIX_STEPS))


@pytest.mark.must
def test_overlap(check: Check) -> None:
    """Optimizers whose parameters overlap step the common ones each, the others alone."""
    first = Assignment("SGD", {"lr": 0.05, "momentum": 0.9}, ("0.weight", "0.bias", "2.weight"))
    second = Assignment("Adam", {"lr": 0.01}, ("2.weight", "4.weight", "4.bias"))
    check(Plan("MLP", (first, second), SIX_STEPS))


@pytest.mark.must
def test_one_step_each(implementation: Implementation, device: str) -> None:
    """Each listed optimizer's `step()` runs once a backward for each of its parameters, as its step hooks count.

    It may step all of them by one call, or some of them at a time, which are in its parameter groups then.
    """
    optimizer_class, options = bind(implementation, PLAIN_SGD)
    model = MLP().to(device)
    for _ in range(2):
        implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    calls: Counter[tuple[int, int]] = Counter()
    listed = implementation.optimizers(model)
    for number, optimizer in enumerate(listed):
        optimizer.register_step_post_hook(
            lambda stepped, *_, number=number: calls.update((number, each) for each in parameters_of(stepped))
        )
    backwards = 3
    for _ in range(backwards):
        implementation.backward(model(torch.randn(2, 4, device=device)).sum(), model)
    if not calls and implementation.declared.own_optimizers:
        raise NotOffered("its own optimizers step without `Optimizer.step`, so that no hook can count their steps")
    for number, optimizer in enumerate(listed):
        for param in parameters_of(optimizer):
            assert calls[number, param] == backwards, (
                f"{calls[number, param]} calls of step() in {backwards} backwards, optimizer {number} of {len(listed)} "
                f"listed"
            )


@pytest.mark.must
def test_own_state(implementation: Implementation, device: str) -> None:
    """Each of a parameter's optimizers keeps its own state: no tensor of it is another's."""
    optimizer_class, options = bind(implementation, ADAM_WITH_STATE)
    model, ordinary_model = MLP().to(device), MLP().to(device)
    features = torch.randn(2, 4, device=device)
    for _ in range(2):
        implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    implementation.backward(model(features).sum(), model)
    held = _state_tensors(implementation.optimizers(model), model)
    ordinary = implementation.standard_optimizer(optimizer_class, ordinary_model.parameters(), dict(options))
    ordinary_model(features).sum().backward()
    ordinary.step()
    expected = 2 * len(_state_tensors([ordinary], ordinary_model))
    assert len(held) == expected, f"the listed optimizers hold {len(held)} state tensors, expected {expected}"
    shared = [name for name, identity in held if sum(identity == other for _, other in held) > 1]
    assert not shared, f"optimizers share state tensors: {shared[0]}"


def _state_tensors(listed: list[torch.optim.Optimizer], model: nn.Module) -> list[tuple[str, int]]:
    """Return a name and the identity of each tensor in the states of the parameters of `model`."""
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
