"""Executes the events of `plan.events.attachment`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.outcome import NotOffered
from inbackward_conformance.plan import events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.AttachMore)
def _(event: events.AttachMore, run: TrainingRun) -> None:
    run.method.attach(run.model, [run.bind(event.assignment)])


@execute.register(events.FailToAttach)
def _(event: events.FailToAttach, run: TrainingRun) -> None:
    try:
        run.method.attach(run.model, [run.bind(event.assignment)])
    except NotOffered:
        raise
    except Exception:  # noqa: BLE001, S110 (the next events tell whether it left something behind)
        pass


@execute.register(events.TrainOrdinarily)
def _(event: events.TrainOrdinarily, run: TrainingRun) -> None:
    optimizer = run.another_optimizer()
    run.loss(run.next_batch()).backward()
    optimizer.step()
    optimizer.zero_grad()


@execute.register(events.Grow)
def _(event: events.Grow, run: TrainingRun) -> None:
    run.model.grow()  # type: ignore[operator]
    run.model.to(run.device)
