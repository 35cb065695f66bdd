"""Chooses the function that executes an event, by the type of the event."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inbackward_conformance.plan.events import Event
    from inbackward_conformance.training.run import TrainingRun


@singledispatch
def execute(event: Event, run: TrainingRun) -> None:
    """Execute an event in a run.

    It calls `run.method` where the standard loop and an implementation differ.
    """
    raise NotImplementedError(f"{type(event).__name__} has no function here: register one with @execute.register")
