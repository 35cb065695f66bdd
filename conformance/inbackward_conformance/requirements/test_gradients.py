"""What happens to gradients: where they come from, what they may be, and that they are gone afterwards."""

from __future__ import annotations

import pytest

from inbackward_conformance.check import Check
from inbackward_conformance.events import Accumulate, Backward, StepAnother
from inbackward_conformance.plan import Assignment, Plan

SGD = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})

with_both = pytest.mark.parametrize("assignment", [SGD, ADAMW], ids=["SGD", "AdamW"])


@pytest.mark.must
@with_both
def test_freed(check: Check, assignment: Assignment) -> None:
    """`.grad` of every attached parameter is None after backward."""
    check(Plan("MLP", (assignment,), (Backward(),) * 3))


@pytest.mark.must
@with_both
def test_another_optimizer(check: Check, assignment: Assignment) -> None:
    """Another optimizer over the same parameters, stepped after backward, finds nothing to do."""
    check(Plan("MLP", (assignment,), (Backward(), StepAnother()) * 3))


@pytest.mark.must
@with_both
def test_from_before(check: Check, assignment: Assignment) -> None:
    """A gradient from before attachment counts where backward reaches the parameter: both are added, then stepped."""
    check(Plan("MLP", (assignment,), (Backward(),) * 3, before=(Accumulate(),)))


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
@with_both
def test_from_before_unreached(check: Check, assignment: Assignment) -> None:
    """A gradient from before attachment on a parameter that the next backward does not reach is stepped, or refused.

    The standard loop steps every parameter that holds a gradient.
    """
    events = (Backward(skip=("left",)), Backward(), Backward())
    check(Plan("Branches", (assignment,), events, before=(Accumulate(),)))


@pytest.mark.must
@with_both
def test_zero(check: Check, assignment: Assignment) -> None:
    """A gradient of zeros is a gradient: momentum and weight decay move the parameter."""
    check(Plan("MLP", (assignment,), (Backward(), Backward(scale=0.0), Backward())))


@pytest.mark.must
@pytest.mark.parametrize("scale", [float("inf"), float("nan")], ids=["inf", "nan"])
@with_both
def test_non_finite(check: Check, assignment: Assignment, scale: float) -> None:
    """A non-finite gradient is stepped as in the standard loop: neither skipped nor mended."""
    check(Plan("MLP", (assignment,), (Backward(), Backward(scale=scale), Backward())))


@pytest.mark.must
@with_both
def test_unused_parameter(check: Check, assignment: Assignment) -> None:
    """An unused parameter stays untouched by momentum and weight decay, while its neighbours step."""
    events = (Backward(), Backward(skip=("right",)), Backward(skip=("right",)), Backward())
    check(Plan("Branches", (assignment,), events))
