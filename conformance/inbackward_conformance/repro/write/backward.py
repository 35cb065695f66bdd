"""Writes the events of `plan.events.backward`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inbackward_conformance.catalogue.surroundings import SURROUNDINGS
from inbackward_conformance.plan import events
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.sources import ANOTHER_OPTIMIZER
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(events.Attach)
def _(event: events.Attach, script: Script) -> None:
    assignments = [script.assign(assignment) for assignment in script.plan.assignments]
    script.add(*script.loop.attach(assignments))
    script.attached = True


@write.register(events.Backward)
def _(event: events.Backward, script: Script) -> None:
    script.draw_batch()
    loss = script.loss(event.skip, scale=event.scale)
    options = ["create_graph=True"] * event.create_graph
    options += [f"inputs={sources.parameters(event.inputs)}"] * bool(event.inputs)
    if not event.inside:
        script.add(*script.loop.backward(loss, ", ".join(options)))
        return
    script.add(f"loss = {loss}")
    backward, *after = script.loop.backward("loss", ", ".join(options))
    with script.block(f"with {_surroundings(script, event.inside)}:"):
        script.add(backward)
    script.add(*after)


@write.register(events.Accumulate)
def _(event: events.Accumulate, script: Script) -> None:
    script.draw_batch()
    script.add(f"{script.loss(event.skip)}.backward()")


@write.register(events.StepByHand)
def _(event: events.StepByHand, script: Script) -> None:
    script.add(*script.loop.step_by_hand())


@write.register(events.StepAnother)
def _(event: events.StepAnother, script: Script) -> None:
    script.add(f"{ANOTHER_OPTIMIZER}.step()")


def _surroundings(script: Script, name: str) -> str:
    context: Any = SURROUNDINGS[name]
    return f"torch.{name}()" if context.__module__.startswith("torch.") else f"{script.name_of(context)}()"
