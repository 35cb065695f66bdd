"""Writes the events of `plan.events.tensor_parallel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan import events
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(events.Parallelize)
def _(event: events.Parallelize, script: Script) -> None:
    script.make_mesh()
    styles = ", ".join(f"{name!r}: {_style(style)}" for name, style in event.styles.items())
    script.add(f"styles = {{{styles}}}", 'tensor_parallel.parallelize_module(model, mesh["tensor"], styles)')
    script.shard_some()


@write.register(events.AverageByHand)
def _(event: events.AverageByHand, script: Script) -> None:
    script.make_mesh()
    script.add(*script.loop.average_by_hand(script.local("param.grad")))


@write.register(events.DeclareLocal)
def _(event: events.DeclareLocal, script: Script) -> None:
    named = [f"model.get_parameter({name!r})" for name in event.params]
    script.add(*script.loop.declare_local(f"[{', '.join(named)}]" if named else "list(model.parameters())"))


def _style(style: events.Style) -> str:
    layouts = ", ".join(f"{argument}=tensors.{layout}" for argument, layout in style.layouts.items())
    return f"tensor_parallel.{style.name}({layouts})"
