"""The events of a plan: plain data, each of which knows what it does to a run.

An event is the same for the standard loop and for an implementation; where the two part, it asks the method
(`run.method`) that the run was given. Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from inbackward_conformance.events.backward import Accumulate, Attach, Backward, StepAnother, StepByHand

if TYPE_CHECKING:
    from inbackward_conformance.run import Run

__all__ = ["Accumulate", "Attach", "Backward", "Event", "StepAnother", "StepByHand"]


class Event(Protocol):
    """Something that happens in a run."""

    def happen(self, run: Run) -> None:
        """Carry the event out."""
