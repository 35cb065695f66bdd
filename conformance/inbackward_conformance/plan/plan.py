"""The plan: a model, the assignments of optimizers to its parameters, and the events of the run."""

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
    """The process group that runs a plan. Batches depend on the rank; all else is the same on every rank.

    Attributes:
        world_size: number of ranks.
        tolerance: the largest difference from the standard loop that passes, relative to the largest value of the
            tensor; 0 means bitwise equal. A mean over three or more ranks depends on the order of the sum and is
            rounded, so an implementation that does not use the reducer's all-reduce need not match it bitwise.
    """

    world_size: int
    tolerance: float = 0.0


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

    def assignments_of(self, event: Event) -> tuple[Assignment, ...]:
        """Return the assignments that an event attaches, if any."""
        match event:
            case Attach():
                return self.assignments
            case AttachMore():
                return (event.assignment,)
        return ()
