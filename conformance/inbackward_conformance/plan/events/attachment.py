"""Events around attachment: training before it, attachments that fail, and further attachments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inbackward_conformance.plan.events.event import Event

if TYPE_CHECKING:
    from inbackward_conformance.plan.assignment import Assignment


@dataclass(frozen=True, repr=False)
class AttachMore(Event):
    """Attach one more assignment in the middle of training."""

    assignment: Assignment


@dataclass(frozen=True, repr=False)
class FailToAttach(Event):
    """Attach an assignment that raises in the standard loop, and continue. Belongs in `Plan.before`."""

    assignment: Assignment


@dataclass(frozen=True, repr=False)
class TrainOrdinarily(Event):
    """Train for one step with a separate, ordinary optimizer."""


@dataclass(frozen=True, repr=False)
class Grow(Event):
    """Add a layer with new parameters to the model: `model.grow()`."""
