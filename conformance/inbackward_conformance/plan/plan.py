"""The plan: a model, the assignments of optimizers to its parameters, and the events of the run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inbackward_conformance.plan.events import Attach, AttachMore, LoadSharded, SaveSharded
from inbackward_conformance.plan.literals import Printable

if TYPE_CHECKING:
    from inbackward_conformance.plan.assignment import Assignment
    from inbackward_conformance.plan.events import Event
    from inbackward_conformance.plan.ranks import Ranks

EXACT_RANKS = 2
"""The largest number of ranks whose mean does not depend on the order of the sum, and is not rounded."""


@dataclass(frozen=True, repr=False)
class Plan(Printable):
    """One scenario.

    Attributes:
        model: name of a model in `inbackward_conformance.catalogue`.
        assignments: attached in this order.
        events: events after attachment, in order.
        before: events before attachment, in order.
        shared: `(name, source)` pairs; the parameter `name` is replaced by the parameter `source`.
        frozen: parameters that do not require gradients from the start.
        dtype: name of the floating dtype to cast the model and its batches to; empty for no cast.
        arguments: positional arguments of the model class.
        seed: seed of the initial values, the batches and the model's own random numbers.
        ranks: the process group; None to run in this process alone.
    """

    model: str
    assignments: tuple[Assignment, ...]
    events: tuple[Event, ...]
    before: tuple[Event, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()
    frozen: tuple[str, ...] = ()
    dtype: str = ""
    arguments: tuple[Any, ...] = ()
    seed: int = 0
    ranks: Ranks | None = None

    @property
    def tolerance(self) -> float:
        """The largest difference from the standard loop that passes, as in `Ranks`; 0 means bitwise equal."""
        return self.ranks.tolerance if self.ranks and self.ranks.world_size > EXACT_RANKS else 0.0

    @property
    def sends_activations(self) -> bool:
        """Whether ranks need each other's activations, in the plan or to save a checkpoint that it loads."""
        loads = [event for event in self.events if isinstance(event, LoadSharded)]
        return any(ranks.sends_activations for ranks in (self.ranks, *(load.ranks for load in loads)) if ranks)

    def scaled(self, factor: int) -> Plan:
        """Return the plan on `factor` times as many ranks; the checkpoints that it loads are of as many more, too."""
        if self.ranks is None:
            return self
        events = tuple(
            replace(event, ranks=event.ranks.scaled(factor)) if isinstance(event, LoadSharded) else event
            for event in self.events
        )
        return replace(self, events=events, ranks=self.ranks.scaled(factor))

    def saving(self, load: LoadSharded) -> Plan:
        """Return the plan that saves the checkpoint which `load`, an event of this plan, loads."""
        events = (*load.events, SaveSharded(load.folder))
        return replace(self, before=load.before, events=events, ranks=load.ranks)

    def assignments_of(self, event: Event) -> tuple[Assignment, ...]:
        """Return the assignments that an event attaches, if any."""
        match event:
            case Attach():
                return self.assignments
            case AttachMore():
                return (event.assignment,)
        return ()
