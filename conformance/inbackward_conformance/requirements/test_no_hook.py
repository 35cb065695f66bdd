"""`register_hook=False`: optimizers that are attached, listed, and stepped by somebody else."""

from __future__ import annotations

import pytest

from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward, StepByHand

UNHOOKED = Assignment("AdamW", {"lr": 0.01}, hook=False)
HOOKED = Assignment("SGD", {"lr": 0.05, "momentum": 0.9})


@pytest.mark.must
def test_backward_steps_nothing(check: Check) -> None:
    """Backward leaves parameters alone and gradients in place; a second backward adds to them."""
    check(Plan("MLP", (UNHOOKED,), (Backward(), Backward())))


@pytest.mark.must
def test_stepped_by_hand(check: Check) -> None:
    """Stepping the listed optimizers by hand after backward is the standard loop."""
    check(Plan("MLP", (UNHOOKED,), (Backward(), StepByHand()) * 6))


@pytest.mark.must
def test_beside_hooked_parameters(check: Check) -> None:
    """Parameters without a hook wait, while their hooked neighbours step inside backward."""
    hooked = Assignment("SGD", {"lr": 0.05}, ("0.weight", "0.bias"))
    unhooked = Assignment("AdamW", {"lr": 0.01}, ("2.weight", "4.weight", "4.bias"), hook=False)
    check(Plan("MLP", (hooked, unhooked), (Backward(),) * 3))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize(
    "assignments", [(HOOKED, UNHOOKED), (UNHOOKED, HOOKED)], ids=["hooked-first", "unhooked-first"]
)
def test_hooked_and_unhooked(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """The hook of a parameter steps those of its optimizers too that were attached without one, in order of attachment.

    That is what torch's source does; refusing the second call is the other correct answer.
    """
    check(Plan("MLP", assignments, (Backward(),) * 6))
