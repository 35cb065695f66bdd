"""The catalogues of optimizers and schedulers cover what this torch offers, and every entry shows."""

from __future__ import annotations

import pytest
import torch

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.catalogue.optimizer_configurations import (
    closure_free_optimizer_names,
    configurations,
    optimizer_names,
    unknown_options,
)
from inbackward_conformance.catalogue.schedulers import (
    METRIC,
    build_scheduler,
    schedulers,
    uncovered_schedulers,
    watches_metric,
)
from inbackward_conformance.plan import Plan, events
from inbackward_conformance.plan.events import Backward, Scheduler, StartSchedule
from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.train import train

each_scheduler = pytest.mark.parametrize("scheduler", list(schedulers()), ids=lambda scheduler: scheduler.name)


def test_every_option_and_every_scheduler_is_covered() -> None:
    """What a later torch adds is covered as soon as its values stand in the catalogue."""
    assert unknown_options() == {}
    assert uncovered_schedulers() == []


def test_only_lbfgs_needs_a_closure() -> None:
    assert set(optimizer_names()) - set(closure_free_optimizer_names()) == {"LBFGS"}


@pytest.mark.parametrize("optimizer", closure_free_optimizer_names())
def test_some_configuration_of_every_class_can_be_stepped(optimizer: str) -> None:
    """Where the standard loop raises in all of them, agreeing with it would show nothing."""
    plain = next(configuration for configuration in configurations() if configuration.optimizer == optimizer)
    plan = Plan(plain.model, (plain.assignment,), (Backward(),))
    trace = train(plan, StandardLoop(Implementation(object())))
    assert trace.raised is None
    after = trace.snapshots[-1]
    assert any(not value.equal(after.params[name]) for name, value in trace.start.params.items())


@each_scheduler
def test_a_printed_schedule_builds_the_schedule(scheduler: Scheduler) -> None:
    event = StartSchedule(scheduler, "0")
    assert eval(repr(event), dict(vars(events))) == event  # noqa: S307


@each_scheduler
@pytest.mark.filterwarnings("ignore")
def test_a_schedule_changes_options_within_eight_epochs(scheduler: Scheduler) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    schedule = build_scheduler(scheduler, optimizer)
    seen = set()
    for _ in range(8):
        seen.add((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        schedule.step(*([METRIC] if watches_metric(scheduler) else []))
    assert len({lr for lr, _ in seen}) > 1
    assert len({momentum for _, momentum in seen}) > ("base_momentum" in scheduler.options)
