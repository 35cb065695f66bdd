"""The catalogue covers what this torch offers."""

from __future__ import annotations

import pytest

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.catalogue.optimizer_configurations import (
    closure_free_optimizer_names,
    configurations,
    optimizer_names,
    unknown_options,
)
from inbackward_conformance.plan import Plan
from inbackward_conformance.plan.events import Backward
from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.train import train


def test_every_option_is_varied() -> None:
    """An option that a later torch adds is covered as soon as its values stand in the catalogue."""
    assert unknown_options() == {}


def test_only_lbfgs_needs_a_closure() -> None:
    assert set(optimizer_names()) - set(closure_free_optimizer_names()) == {"LBFGS"}


@pytest.mark.parametrize("optimizer", closure_free_optimizer_names())
def test_some_configuration_of_every_class_can_be_stepped(optimizer: str) -> None:
    """Where the standard loop raises in all of them, agreeing with it would show nothing."""
    plain = next(found for found in configurations() if found.optimizer == optimizer)
    plan = Plan(plain.model, (plain.assignment,), (Backward(),))
    trace = train(plan, StandardLoop(Implementation(object())))
    assert trace.raised is None
    after = trace.snapshots[-1]
    assert any(not value.equal(after.params[name]) for name, value in trace.start.params.items())
