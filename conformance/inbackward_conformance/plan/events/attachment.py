"""What happens around attachment: training before it, failures of it, and more of it later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inbackward_conformance.plan.events.event import Event

if TYPE_CHECKING:
    from inbackward_conformance.plan.assignment import Assignment


@dataclass(frozen=True, repr=False)
class AttachMore(Event):
    """Make one more assignment, in the middle of training."""

    assignment: Assignment


@dataclass(frozen=True, repr=False)
class FailToAttach(Event):
    """Make an assignment that raises in the standard loop, and go on. Belongs to `Plan.before`."""

    assignment: Assignment


@dataclass(frozen=True, repr=False)
class TrainOrdinarily(Event):
    """Train for one step by another, ordinary optimizer."""


@dataclass(frozen=True, repr=False)
class Grow(Event):
    """Let the model build another layer, with parameters of its own: `model.grow()`."""
