"""Writes the events of `plan.events.schedule`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan.events import SetOption, StartSchedule, StepSchedules
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(StartSchedule)
def _(event: StartSchedule, script: Script) -> None:
    module = sources.attribute(event.submodule)
    script.start_schedule(script.loop.schedule(module, event.scheduler))


@write.register(StepSchedules)
def _(event: StepSchedules, script: Script) -> None:
    metric = "" if event.metric is None else event.metric
    script.add("for schedule in schedules:", f"    schedule.step({metric})")


@write.register(SetOption)
def _(event: SetOption, script: Script) -> None:
    with (
        script.block(f"for optimizer in {script.loop.optimizers()}:"),
        script.block("for group in optimizer.param_groups:"),
    ):
        setting = f"group[{event.option!r}] = {sources.option(event.value)}"
        if event.params:
            params = sources.parameters(event.params)
            script.add(f"if set(group['params']) <= set({params}):", f"    {setting}")
        else:
            script.add(setting)
