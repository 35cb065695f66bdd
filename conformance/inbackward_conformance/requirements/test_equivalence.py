"""Bitwise the standard loop, parameters and optimizer states, for whatever `torch.optim` offers."""

from __future__ import annotations

import pytest

from inbackward_conformance.catalogue.optimizer_configurations import (
    configurations,
    model_for,
    standard_may_raise,
)
from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward
from inbackward_conformance.plan.need import ANOTHER_CLASS, EXACTLY, SAME_CLASS
from inbackward_conformance.plugin.optimizer_cases import optimizers

SIX_STEPS = (Backward(),) * 6
WEIGHTS = ("0.weight", "2.weight", "4.weight")
BIASES = ("0.bias", "2.bias", "4.bias")


CONFIGURATIONS = list(configurations())


@pytest.mark.must
@optimizers(
    "assignment",
    [configuration.assignment for configuration in CONFIGURATIONS],
    ids=list(map(str, CONFIGURATIONS)),
    variants=True,
)
def test_every_configuration(check: Check, assignment: Assignment) -> None:
    """Every public class of `torch.optim`, in every configuration that it offers, trains as in the standard loop.

    An implementation with optimizer classes of its own is tested with each of these, in every variant that its adapter
    declares.

    Parameters and optimizer states are compared, bit by bit, after each of six steps. Where the standard loop itself
    cannot step a configuration (differentiable on leaf parameters, capturable on CPU), the implementation raises as
    well.
    """
    plan = Plan(model_for(assignment.optimizer), (assignment,), SIX_STEPS)
    check(plan, standard_may_raise=standard_may_raise(assignment))


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
def test_closure(check: Check) -> None:
    """An optimizer that needs a closure (LBFGS) trains as in the standard loop, or is refused at attachment.

    A closure evaluates the model again in the middle of a step, which backward cannot do.
    """
    check(Plan("MLP", (Assignment("LBFGS", {"lr": 0.1, "max_iter": 4}, need=EXACTLY),), SIX_STEPS))


@pytest.mark.must
@optimizers(
    "assignments",
    [
        (Assignment("SGD", {"lr": 1.0}, WEIGHTS), Assignment("SGD", {"lr": 0.5}, BIASES, need=SAME_CLASS)),
        (
            Assignment("SGD", {"lr": 0.1, "momentum": 0.9}, WEIGHTS),
            Assignment("AdamW", {"lr": 0.01}, BIASES, need=ANOTHER_CLASS),
        ),
        (Assignment("Muon", {"lr": 0.02}, WEIGHTS), Assignment("Adam", {"lr": 0.01}, BIASES, need=ANOTHER_CLASS)),
    ],
)
def test_weights_and_biases(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """Weights and biases under different optimizers, or under one with different options, each follow their own."""
    check(Plan("MLP", assignments, SIX_STEPS))


@pytest.mark.must
def test_part_of_the_model(check: Check) -> None:
    """Parameters that were not attached are left alone and keep their gradients."""
    check(Plan("MLP", (Assignment("AdamW", {"lr": 0.01}, WEIGHTS),), SIX_STEPS))


@pytest.mark.must
@optimizers(
    "assignment",
    [Assignment("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}), Assignment("AdamW", {"lr": 0.01})],
)
def test_long_run(check: Check, assignment: Assignment) -> None:
    """Two hundred steps do not drift: parameters and states are bitwise those of the standard loop after each."""
    check(Plan("MLP", (assignment,), (Backward(),) * 200))
