"""Several optimizers on one parameter: each steps once a backward, in the order of attachment."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.catalogue.models import MLP
from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward

SIX_STEPS = (Backward(),) * 6
SGD = Assignment("SGD", {"lr": 0.03, "weight_decay": 0.1})
SLOW_SGD = Assignment("SGD", {"lr": 0.01, "momentum": 0.9})
ADAM = Assignment("Adam", {"lr": 0.01})
QUICK_ADAM = Assignment("Adam", {"lr": 0.03, "betas": (0.8, 0.9)})
RMSPROP = Assignment("RMSprop", {"lr": 0.01, "momentum": 0.9})


def _ids(assignments: Any) -> str:
    return "-".join(assignment.optimizer for assignment in assignments)


@pytest.mark.must
@pytest.mark.parametrize("assignments", [(SGD, SLOW_SGD), (ADAM, QUICK_ADAM), (ADAM, QUICK_ADAM, ADAM)], ids=_ids)
def test_same_class(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """Two or three optimizers of one class, with different options, each step every parameter once a backward."""
    check(Plan("MLP", assignments, SIX_STEPS))


@pytest.mark.must
@pytest.mark.parametrize(
    "assignments", [(SGD, ADAM), (ADAM, SGD), (RMSPROP, SGD, ADAM), (SGD, ADAM, RMSPROP)], ids=_ids
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
    """Each listed optimizer's `step()` runs once a backward, as its step hooks count."""
    model = MLP().to(device)
    for _ in range(2):
        implementation.attach(model, [(torch.optim.SGD, model.parameters(), {"lr": 0.01}, True)])
    calls: Counter[int] = Counter()
    optimizers = implementation.optimizers(model)
    for number, optimizer in enumerate(optimizers):
        optimizer.register_step_post_hook(lambda *_, number=number: calls.update([number]))
    backwards = 3
    for _ in range(backwards):
        implementation.backward(model(torch.randn(2, 4, device=device)).sum(), model)
    for number in range(len(optimizers)):
        assert calls[number] == backwards, (
            f"{calls[number]} calls of step() in {backwards} backwards, optimizer {number} of {len(optimizers)} listed"
        )


@pytest.mark.must
def test_own_state(implementation: Implementation, device: str) -> None:
    """Each of a parameter's optimizers keeps its own state: no tensor of it is another's."""
    model = MLP().to(device)
    for _ in range(2):
        implementation.attach(model, [(torch.optim.Adam, model.parameters(), {"lr": 0.01}, True)])
    implementation.backward(model(torch.randn(2, 4, device=device)).sum(), model)
    held = [
        (f"{key} of {name}", id(value))
        for optimizer in implementation.optimizers(model)
        for name, param in model.named_parameters()
        if param in optimizer.state
        for key, value in optimizer.state[param].items()
    ]
    expected = 2 * 3 * len(list(model.parameters()))
    assert len(held) == expected, f"the listed optimizers hold {len(held)} state tensors, expected {expected}"
    shared = [name for name, identity in held if sum(identity == other for _, other in held) > 1]
    assert not shared, f"optimizers share state tensors: {shared[0]}"
