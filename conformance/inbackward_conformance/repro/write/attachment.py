"""Writes the events of `plan.events.attachment`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan import events
from inbackward_conformance.repro.failure import CannotWrite
from inbackward_conformance.repro.sources import ANOTHER_OPTIMIZER
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(events.AttachMore)
def _(event: events.AttachMore, script: Script) -> None:
    script.add(*script.loop.attach([script.assign(event.assignment)], more=True))


@write.register(events.FailToAttach)
def _(event: events.FailToAttach, script: Script) -> None:
    if script.attached:
        raise CannotWrite("FailToAttach belongs to Plan.before")
    with script.block("try:"):
        script.add(*script.loop.attach([script.assign(event.assignment)]))
    script.add("except Exception:", "    pass")


@write.register(events.TrainOrdinarily)
def _(event: events.TrainOrdinarily, script: Script) -> None:
    script.draw_batch()
    script.add(f"another = {ANOTHER_OPTIMIZER}", f"{script.loss()}.backward()")
    script.add("another.step()", "another.zero_grad()")


@write.register(events.Grow)
def _(event: events.Grow, script: Script) -> None:
    script.add("model.grow()", *[f"model.to({script.device!r})"] * (script.device != "cpu"))
    script.restructured = True
