"""Writes the events of `plan.events.accumulation`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.catalogue.user_hooks import HookError, fail
from inbackward_conformance.plan import events
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(events.MicroBatch)
def _(event: events.MicroBatch, script: Script) -> None:
    script.draw_batch()
    contexts = [f"{script.forward}.no_sync()"] * event.unsynchronised + script.loop.accumulating()
    backward = f"{script.loss(event.skip)}.backward()"
    lines = [f"with {', '.join(contexts)}:", f"    {backward}"] if contexts else [backward]
    if not event.error_in:
        script.add(*lines)
        return
    script.add(f"failing = model.get_parameter({event.error_in!r}).register_hook({script.name_of(fail)})")
    with script.block("try:"):
        script.add(*lines)
    with script.block(f"except {script.name_of(HookError)}:"):
        pass
    script.add("failing.remove()")
