"""Executes the events of `plan.events.backward`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inbackward_conformance.plan.events import Accumulate, Attach, Backward, StepAnother, StepByHand
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from inbackward_conformance.training.run import TrainingRun


@execute.register(Attach)
def _(event: Attach, run: TrainingRun) -> None:
    run.method.attach(run.model, [run.bind(assignment) for assignment in run.plan.assignments])
    run.attached = True


@execute.register(Backward)
def _(event: Backward, run: TrainingRun) -> None:
    batch = run.next_batch()
    kwargs: dict[str, Any] = {"create_graph": True} if event.create_graph else {}
    if event.inputs:
        kwargs["inputs"] = [run.model.get_parameter(name) for name in event.inputs]
    run.method.backward(run.model, lambda: run.loss(batch, skip=event.skip) * event.scale, **kwargs)


@execute.register(Accumulate)
def _(event: Accumulate, run: TrainingRun) -> None:
    run.loss(run.next_batch(), skip=event.skip).backward()


@execute.register(StepByHand)
def _(event: StepByHand, run: TrainingRun) -> None:
    run.method.step_by_hand(run.model)


@execute.register(StepAnother)
def _(event: StepAnother, run: TrainingRun) -> None:
    run.another_optimizer().step()
