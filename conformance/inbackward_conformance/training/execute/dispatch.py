"""Chooses the function that executes an event, by the type of the event."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inbackward_conformance.plan.events import Event
    from inbackward_conformance.training.run import TrainingRun


@singledispatch
def execute(event: Event, run: TrainingRun) -> None:
    """Carry an event out in a run.

    An event is the same for the standard loop and for an implementation. Where the two part, it asks `run.method`.
    """
    raise NotImplementedError(f"{type(event).__name__} has no function here: register one with @execute.register")
