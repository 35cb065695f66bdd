"""Micro-batches: gradients add up while an implementation accumulates, and one step takes the sum.

An adapter offers it as `accumulate(module)`, a context manager around every micro-batch but the last.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward, Freeze, MicroBatch, Thaw
from inbackward_conformance.plan.need import ANOTHER_CLASS
from inbackward_conformance.plugin.optimizer_cases import optimizers

SGD = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
OTHER_ADAMW = replace(ADAMW, need=ANOTHER_CLASS)

with_both = optimizers("assignment", [SGD, ADAMW])


@pytest.mark.must
@pytest.mark.needs("accumulate")
@pytest.mark.parametrize("before_the_last", [1, 2], ids=["two", "three"])
@with_both
def test_micro_batches(check: Check, assignment: Assignment, before_the_last: int) -> None:
    """Two or three micro-batches are one step, with the sum of their gradients; nothing is stepped before the last."""
    check(Plan("MLP", (assignment,), (*(MicroBatch(),) * before_the_last, Backward()) * 3))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@with_both
def test_between_ordinary_steps(check: Check, assignment: Assignment) -> None:
    """Steps with and without micro-batches take turns."""
    check(Plan("MLP", (assignment,), (Backward(), MicroBatch(), Backward(), Backward(), MicroBatch(), Backward())))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@with_both
def test_reached_by_the_first_alone(check: Check, assignment: Assignment) -> None:
    """A parameter that only the first micro-batch reaches is stepped with the others, after the last."""
    events = (Backward(), MicroBatch(skip=("left",)), Backward(skip=("right",)), Backward())
    check(Plan("Branches", (assignment,), events))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@with_both
def test_frozen_between(check: Check, assignment: Assignment) -> None:
    """A parameter that is frozen after the first micro-batch is stepped with the gradient that it holds."""
    freeze = Freeze(("2.weight", "4.bias"))
    thaw = Thaw(freeze.params)
    check(Plan("MLP", (assignment,), (Backward(), MicroBatch(), freeze, Backward(), thaw, MicroBatch(), Backward())))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@with_both
def test_error_in_one(check: Check, assignment: Assignment) -> None:
    """An error in a micro-batch leaves the gradients as the standard loop has them, and training goes on."""
    check(
        Plan("MLP", (assignment,), (MicroBatch(), MicroBatch(error_in="0.bias"), Backward(), MicroBatch(), Backward()))
    )


@pytest.mark.must
@pytest.mark.needs("accumulate")
@optimizers("assignments", [(SGD, OTHER_ADAMW)], ids=["two"])
def test_two_optimizers(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """Two optimizers on every parameter each step once, after the last micro-batch."""
    check(Plan("MLP", assignments, (MicroBatch(), Backward()) * 3))


@pytest.mark.must
@pytest.mark.needs("accumulate")
def test_shared_parameter(check: Check) -> None:
    """A parameter that a forward uses twice adds up all parts of its gradient, of every micro-batch."""
    check(Plan("LayerUsedTwice", (SGD,), (MicroBatch(), MicroBatch(), Backward()) * 2))
