"""Writes the events of `plan.events.backward`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan.events import Accumulate, Attach, Backward, StepAnother, StepByHand
from inbackward_conformance.plan.literals import expression
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(Attach)
def _(event: Attach, script: Script) -> None:
    assignments = [script.assign(assignment) for assignment in script.plan.assignments]
    script.add(*script.loop.attach(assignments))
    script.attached = True


@write.register(Backward)
def _(event: Backward, script: Script) -> None:
    script.draw_batch()
    loss = script.loss(event.skip)
    if event.scale != 1.0:
        loss = f"({loss} * {expression(event.scale)})"
    options = ["create_graph=True"] * event.create_graph
    options += [f"inputs={sources.parameters(event.inputs)}"] * bool(event.inputs)
    script.add(*script.loop.backward(loss, ", ".join(options)))


@write.register(Accumulate)
def _(event: Accumulate, script: Script) -> None:
    script.draw_batch()
    script.add(f"{script.loss(event.skip)}.backward()")


@write.register(StepByHand)
def _(event: StepByHand, script: Script) -> None:
    script.add(*script.loop.step_by_hand())


@write.register(StepAnother)
def _(event: StepAnother, script: Script) -> None:
    script.add("torch.optim.SGD(model.parameters(), lr=1.0).step()")
