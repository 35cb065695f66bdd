"""Executes the events of `plan.events.schedule`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan.events import SetOption, StartSchedule, StepSchedules
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from inbackward_conformance.training.run import TrainingRun


@execute.register(StartSchedule)
def _(event: StartSchedule, run: TrainingRun) -> None:
    run.schedules += run.method.schedule(run.model.get_submodule(event.submodule), event.scheduler)


@execute.register(StepSchedules)
def _(event: StepSchedules, run: TrainingRun) -> None:
    for schedule in run.schedules:
        if event.metric is None:
            schedule.step()
        else:
            schedule.step(event.metric)


@execute.register(SetOption)
def _(event: SetOption, run: TrainingRun) -> None:
    chosen = {id(run.model.get_parameter(name)) for name in event.params}
    for optimizer in run.method.optimizers(run.model):
        for group in optimizer.param_groups:
            if not chosen or chosen.issuperset(map(id, group["params"])):
                group[event.option] = event.value
