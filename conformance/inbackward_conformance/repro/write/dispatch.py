"""Chooses the function that writes an event, by the type of the event."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inbackward_conformance.plan.events import Event
    from inbackward_conformance.repro.script import Script


@singledispatch
def write(event: Event, script: Script) -> None:
    """Write an event into a training function.

    It calls `script.loop` where the standard loop and an implementation differ.
    """
    raise NotImplementedError(f"{type(event).__name__} has no function here: register one with @write.register")
