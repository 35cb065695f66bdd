"""Writes the events of `plan.events.schedule`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan import events
from inbackward_conformance.plan.literals import expression
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(events.StartSchedule)
def _(event: events.StartSchedule, script: Script) -> None:
    module = sources.attribute(event.submodule)
    script.start_schedule(script.loop.schedule(module, event.scheduler))


@write.register(events.StepSchedules)
def _(event: events.StepSchedules, script: Script) -> None:
    if not script.scheduled:
        return
    metric = "" if event.metric is None else expression(event.metric)
    script.add("for schedule in schedules:", f"    schedule.step({metric})")


@write.register(events.SetOption)
def _(event: events.SetOption, script: Script) -> None:
    groups = f"[group for optimizer in {script.loop.optimizers()} for group in optimizer.param_groups]"
    with script.block(f"for group in {groups.replace('for optimizer in [optimizer] ', '')}:"):
        setting = f"group[{event.option!r}] = {sources.option(event.value)}"
        if event.params:
            params = sources.parameters(event.params)
            script.add(f"if set(group['params']) <= set({params}):", f"    {setting}")
        else:
            script.add(setting)
