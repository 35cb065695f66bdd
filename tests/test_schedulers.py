"""The catalogue of schedulers covers torch, and every schedule in it shows."""

from __future__ import annotations

import pytest
import torch

from inbackward_conformance.catalogue.schedulers import (
    METRIC,
    build_scheduler,
    schedulers,
    uncovered_schedulers,
    watches_metric,
)
from inbackward_conformance.plan import events
from inbackward_conformance.plan.events import Scheduler, StartSchedule


def test_every_class_has_options() -> None:
    """A scheduler that torch adds has to get options here."""
    assert uncovered_schedulers() == []


@pytest.mark.parametrize("scheduler", list(schedulers()), ids=lambda scheduler: scheduler.name)
def test_a_printed_schedule_builds_the_schedule(scheduler: Scheduler) -> None:
    event = StartSchedule(scheduler, "0")
    assert eval(repr(event), dict(vars(events))) == event  # noqa: S307


@pytest.mark.parametrize("scheduler", list(schedulers()), ids=lambda scheduler: scheduler.name)
@pytest.mark.filterwarnings("ignore")
def test_shows_within_eight_epochs(scheduler: Scheduler) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    schedule = build_scheduler(scheduler, optimizer)
    seen = set()
    for _ in range(8):
        seen.add((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        schedule.step(*([METRIC] if watches_metric(scheduler) else []))
    assert len({lr for lr, _ in seen}) > 1
    assert len({momentum for _, momentum in seen}) > ("base_momentum" in scheduler.options)
