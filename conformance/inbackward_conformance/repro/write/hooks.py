"""Writes the events of `plan.events.hooks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.catalogue.user_hooks import clip, clipped, drop
from inbackward_conformance.plan import events
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(events.ClipGradients)
def _(event: events.ClipGradients, script: Script) -> None:
    hook = script.name_of(clipped if event.by == "register_hook" else clip)
    script.add("for param in model.parameters():", f"    param.{event.by}({hook})")


@write.register(events.DropGradients)
def _(event: events.DropGradients, script: Script) -> None:
    script.add(f"for param in {sources.parameters(event.params)}:")
    script.add(f"    param.register_post_accumulate_grad_hook({script.name_of(drop)})")
