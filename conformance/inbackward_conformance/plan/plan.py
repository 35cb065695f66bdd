"""The plan: a model, assignments of optimizers to its parameters, and the events of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inbackward_conformance.plan.events import Attach, AttachMore
from inbackward_conformance.plan.literals import Printable

if TYPE_CHECKING:
    from inbackward_conformance.plan.assignment import Assignment
    from inbackward_conformance.plan.events import Event


@dataclass(frozen=True, repr=False)
class Ranks(Printable):
    """The processes that carry a plan out together; batches depend on the rank, all else is the same for all.

    Attributes:
        world_size: how many there are.
        tolerance: the largest difference from the standard loop that passes, relative to the largest value of the
            tensor. 0: none, to the bit. Sums over three or more ranks depend on their order, and a third is rounded:
            an implementation that reduces gradients by another way than the reducer need not hit the same bits.
    """

    world_size: int
    tolerance: float = 0.0


@dataclass(frozen=True, repr=False)
class Plan(Printable):
    """One scenario.

    Attributes:
        model: name of a model of the catalogue (`inbackward_conformance.models`).
        assignments: attached in this order.
        events: what happens after attachment, in this order.
        before: what happens before attachment.
        shared: `(name, source)` pairs: the parameter called name is replaced by the one called source.
        frozen: parameters that do not require gradients from the start.
        dtype: name of the floating dtype that the model and its batches are cast to; empty: as the model is built.
        arguments: what the class of the model is called with.
        seed: of the initial values, the batches and what the model draws.
        ranks: the processes that run it; None: this one alone.
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

    def assignments_of(self, event: Event) -> tuple[Assignment, ...]:
        """Return the assignments that an event makes; none where it attaches nothing."""
        match event:
            case Attach():
                return self.assignments
            case AttachMore():
                return (event.assignment,)
        return ()
