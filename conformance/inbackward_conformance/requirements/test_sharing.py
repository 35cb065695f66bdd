"""One parameter in several places.

Sharing is where a hook or an optimizer for each *mention* of a parameter, instead of one for the parameter, steps too
often. The requirements use optimizers with state, where stepping twice by half is not stepping once.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward
from inbackward_conformance.plan.need import NO_STATE, STATE
from inbackward_conformance.plugin.optimizer_cases import optimizers

SIX_STEPS = (Backward(),) * 6
TIED = (("0.weight", "1.weight"),)

MOMENTUM = Assignment("SGD", {"lr": 0.1, "momentum": 0.9})
ADAM = Assignment("Adam", {"lr": 0.01})

with_state = optimizers("optimizer", [MOMENTUM, ADAM], ids=["SGD-momentum", "Adam"])


@pytest.mark.must
@with_state
def test_used_twice(check: Check, optimizer: Assignment) -> None:
    """A parameter that one forward uses twice is stepped once a backward, with the sum of both gradients."""
    check(Plan("LayerUsedTwice", (optimizer,), SIX_STEPS))


@pytest.mark.must
@with_state
def test_two_names(check: Check, optimizer: Assignment) -> None:
    """A parameter under two module names, attached by `model.parameters()`, is one parameter."""
    check(Plan("TwoLayers", (optimizer,), SIX_STEPS, shared=TIED))


@pytest.mark.must
@pytest.mark.parametrize("name", ["0.weight", "1.weight"])
@with_state
def test_either_name(check: Check, optimizer: Assignment, name: str) -> None:
    """A parameter under two module names trains through whichever name it was attached."""
    check(Plan("TwoLayers", (replace(optimizer, params=(name,)),), SIX_STEPS, shared=TIED))


@pytest.mark.must
def test_listed_twice(check: Check) -> None:
    """A parameter listed twice in one call gives, with plain SGD, what `torch.optim.SGD` gives for that list.

    A list such as `[layer.weight for layer in model]` holds a shared parameter once for each layer.
    """
    both = Assignment("SGD", {"lr": 0.1}, params=("0.weight", "1.weight"), need=NO_STATE)
    others = Assignment("SGD", {"lr": 0.05}, params=("0.bias", "1.bias"))
    check(Plan("TwoLayers", (both.parameter_by_parameter(), others), SIX_STEPS, shared=TIED))


@pytest.mark.must
@pytest.mark.may_refuse
@with_state
def test_listed_twice_with_state(check: Check, optimizer: Assignment) -> None:
    """A parameter listed twice, with an optimizer that keeps state: what torch gives for that list, or refused."""
    both = replace(optimizer, params=("0.weight", "0.bias", "1.weight"), need=STATE)
    check(Plan("TwoLayers", (both.parameter_by_parameter(),), SIX_STEPS, shared=TIED))
