"""Chooses the function that writes an event, by the type of the event."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inbackward_conformance.plan.events import Event
    from inbackward_conformance.repro.script import Script


@singledispatch
def write(event: Event, script: Script) -> None:
    """Write an event down, as the source of a training.

    An event is the same for the standard loop and for an implementation. Where the two part, it asks `script.loop`.
    """
    raise NotImplementedError(f"{type(event).__name__} has no function here: register one with @write.register")
