"""Executes the events of `plan.events.attachment`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.outcome import NotOffered
from inbackward_conformance.plan.events import AttachMore, FailToAttach, Grow, TrainOrdinarily
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from inbackward_conformance.training.run import TrainingRun


@execute.register(AttachMore)
def _(event: AttachMore, run: TrainingRun) -> None:
    run.method.attach(run.model, [run.bind(event.assignment)])


@execute.register(FailToAttach)
def _(event: FailToAttach, run: TrainingRun) -> None:
    try:
        run.method.attach(run.model, [run.bind(event.assignment)])
    except NotOffered:
        raise
    except Exception:  # noqa: BLE001, S110 (the next events tell whether it left something behind)
        pass


@execute.register(TrainOrdinarily)
def _(event: TrainOrdinarily, run: TrainingRun) -> None:
    optimizer = run.another_optimizer()
    run.loss(run.next_batch()).backward()
    optimizer.step()
    optimizer.zero_grad()


@execute.register(Grow)
def _(event: Grow, run: TrainingRun) -> None:
    run.model.grow()  # type: ignore[operator]
    run.model.to(run.device)
