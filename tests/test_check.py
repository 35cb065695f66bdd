"""A check that cannot fail is an error of the suite, not a pass."""

from __future__ import annotations

import pytest

import inbackward
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.catalogue.optimizer_configurations import configurations
from inbackward_conformance.checking.check import Check
from inbackward_conformance.outcome import NotRun, Outcome
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward, SaveSharded
from inbackward_conformance.specification import specification

RAISES = Assignment("SGD", {"lr": 0.1, "differentiable": True})


@pytest.fixture
def check() -> Check:
    return Check(Implementation(inbackward), specification()["gradients/freed"], "cpu")


def test_agreeing_with_a_standard_loop_that_raises_needs_to_be_meant(check: Check) -> None:
    plan = Plan("MLP", (RAISES,), (Backward(),))
    with pytest.raises(RuntimeError, match=r"the plan proves nothing, .* RuntimeError: a leaf"):
        check(plan)
    check(plan, standard_may_raise=True)
    assert [finding.outcome for finding in check.findings] == [Outcome.CONFORMS]


def test_a_mistake_in_a_plan_is_never_agreement(check: Check) -> None:
    plan = Plan("MLP", (Assignment("SGD", {"lr": 0.1}, ("9.weight",)),), (Backward(),))
    with pytest.raises(RuntimeError, match=r"the plan proves nothing, .* AttributeError: .*9"):
        check(plan, standard_may_raise=True)
    assert check.findings == []


def test_every_finding_of_a_case_is_kept(check: Check) -> None:
    for optimizer in ("SGD", "Adam"):
        check(Plan("MLP", (Assignment(optimizer, {"lr": 0.1}),), (Backward(),)))
    assert len(check.findings) == 2


def test_what_the_standard_loop_cannot_step_on_this_device_is_meant(check: Check) -> None:
    """Capturable on CPU, say: torch raises an AssertionError, and that is what agreement is about."""
    for configuration in configurations():
        if configuration.kind == "capturable" and configuration.optimizer in {"Adam", "ASGD"}:
            plan = Plan(configuration.model, (configuration.assignment,), (Backward(),))
            check(plan, standard_may_raise=configuration.standard_may_raise)
    assert [finding.outcome for finding in check.findings] == [Outcome.CONFORMS] * 2


def test_a_folder_that_a_rank_does_not_see_is_no_failure(check: Check) -> None:
    """Ranks of other machines see nothing of a local one: the case was not run."""
    plan = Plan("MLP", (Assignment("SGD", {"lr": 0.1}),), (Backward(), SaveSharded("nowhere")))
    with pytest.raises(NotRun, match=r"rank 0 does not see nowhere: .* --basetemp"):
        check(plan)
