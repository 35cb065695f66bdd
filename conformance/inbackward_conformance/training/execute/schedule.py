"""Executes the events of `plan.events.schedule`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan import events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.StartSchedule)
def _(event: events.StartSchedule, run: TrainingRun) -> None:
    run.schedules += run.method.schedule(run.model.get_submodule(event.submodule), event.scheduler)


@execute.register(events.StepSchedules)
def _(event: events.StepSchedules, run: TrainingRun) -> None:
    for schedule in run.schedules:
        if event.metric is None:
            schedule.step()
        else:
            schedule.step(event.metric)


@execute.register(events.SetOption)
def _(event: events.SetOption, run: TrainingRun) -> None:
    chosen = {id(run.model.get_parameter(name)) for name in event.params}
    for optimizer in run.method.optimizers(run.model):
        for group in optimizer.param_groups:
            if not chosen or chosen.issuperset(map(id, group["params"])):
                group[event.option] = event.value
