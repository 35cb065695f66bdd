"""Bitwise the standard loop, parameters and optimizer states, for whatever `torch.optim` offers."""

from __future__ import annotations

import pytest

from inbackward_conformance.catalogue.optimizer_configurations import Configuration, configurations
from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward

SIX_STEPS = (Backward(),) * 6
WEIGHTS = ("0.weight", "2.weight", "4.weight")
BIASES = ("0.bias", "2.bias", "4.bias")


@pytest.mark.must
@pytest.mark.parametrize("configuration", list(configurations()), ids=str)
def test_every_configuration(check: Check, configuration: Configuration) -> None:
    """Every public class of `torch.optim`, in every configuration that it offers, trains as in the standard loop.

    Parameters and optimizer states are compared, bit by bit, after each of six steps. Where the standard loop itself
    cannot step a configuration (differentiable on leaf parameters, capturable on CPU), the implementation raises as
    well.
    """
    plan = Plan(configuration.model, (configuration.assignment,), SIX_STEPS)
    check(plan, standard_may_raise=configuration.standard_may_raise)


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
def test_closure(check: Check) -> None:
    """An optimizer that needs a closure (LBFGS) trains as in the standard loop, or is refused at attachment.

    A closure evaluates the model again in the middle of a step, which backward cannot do.
    """
    check(Plan("MLP", (Assignment("LBFGS", {"lr": 0.1, "max_iter": 4}),), SIX_STEPS))


@pytest.mark.must
@pytest.mark.parametrize(
    ("weights", "biases"),
    [
        (Assignment("SGD", {"lr": 1.0}, WEIGHTS), Assignment("SGD", {"lr": 0.5}, BIASES)),
        (Assignment("SGD", {"lr": 0.1, "momentum": 0.9}, WEIGHTS), Assignment("AdamW", {"lr": 0.01}, BIASES)),
        (Assignment("Muon", {"lr": 0.02}, WEIGHTS), Assignment("Adam", {"lr": 0.01}, BIASES)),
    ],
    ids=["SGD-SGD", "SGD-AdamW", "Muon-Adam"],
)
def test_weights_and_biases(check: Check, weights: Assignment, biases: Assignment) -> None:
    """Weights and biases under different optimizers, or under one with different options, each follow their own."""
    check(Plan("MLP", (weights, biases), SIX_STEPS))


@pytest.mark.must
def test_part_of_the_model(check: Check) -> None:
    """Parameters that were not attached are left alone and keep their gradients."""
    check(Plan("MLP", (Assignment("AdamW", {"lr": 0.01}, WEIGHTS),), SIX_STEPS))


@pytest.mark.must
@pytest.mark.parametrize(
    "assignment",
    [Assignment("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}), Assignment("AdamW", {"lr": 0.01})],
    ids=["SGD", "AdamW"],
)
def test_long_run(check: Check, assignment: Assignment) -> None:
    """Two hundred steps do not drift: parameters and states are bitwise those of the standard loop after each."""
    check(Plan("MLP", (assignment,), (Backward(),) * 200))
