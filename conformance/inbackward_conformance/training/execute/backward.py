"""Executes the events of `plan.events.backward`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from inbackward_conformance.catalogue.surroundings import SURROUNDINGS
from inbackward_conformance.plan import events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.Attach)
def _(event: events.Attach, run: TrainingRun) -> None:
    run.method.attach(run.model, [run.bind(assignment) for assignment in run.plan.assignments])
    run.attached = True


@execute.register(events.Backward)
def _(event: events.Backward, run: TrainingRun) -> None:
    batch = run.next_batch()
    kwargs: dict[str, Any] = {"create_graph": True} if event.create_graph else {}
    if event.inputs:
        kwargs["inputs"] = [run.model.get_parameter(name) for name in event.inputs]
    inside = SURROUNDINGS[event.inside] if event.inside else nullcontext
    run.method.backward(run.model, lambda: run.loss(batch, skip=event.skip) * event.scale, inside, **kwargs)


@execute.register(events.Accumulate)
def _(event: events.Accumulate, run: TrainingRun) -> None:
    run.loss(run.next_batch(), skip=event.skip).backward()


@execute.register(events.StepByHand)
def _(event: events.StepByHand, run: TrainingRun) -> None:
    run.method.step_by_hand(run.model)


@execute.register(events.StepAnother)
def _(event: events.StepAnother, run: TrainingRun) -> None:
    run.another_optimizer().step()
