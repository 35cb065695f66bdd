"""Writes the events of `plan.events.clipping`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.catalogue.scaler import OPTIONS
from inbackward_conformance.catalogue.user_hooks import overflow
from inbackward_conformance.plan import events
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(events.ClippedBackward)
def _(event: events.ClippedBackward, script: Script) -> None:
    script.draw_batch()
    loss = script.loss(event.skip, scale=event.scale)
    if event.scaler:
        _make_scaler(script)
    if event.overflow_in:
        hook = script.name_of(overflow)
        script.add(f"overflowing = model.get_parameter({event.overflow_in!r}).register_hook({hook})")
    script.add(*script.loop.clipped_backward(loss, event.max_norm, scaler=event.scaler))
    if event.overflow_in:
        script.add("overflowing.remove()")


@write.register(events.ScaledBackward)
def _(_: events.ScaledBackward, script: Script) -> None:
    script.draw_batch()
    _make_scaler(script)
    script.add(*script.loop.scaled_backward(script.loss()))


def _make_scaler(script: Script) -> None:
    if not script.scaled:
        options = ", ".join(f"{option}={value!r}" for option, value in OPTIONS.items())
        script.add(f"scaler = torch.amp.GradScaler({script.device!r}, {options})")
        script.scaled = True
