"""Where a run stands, how events change that, and which kinds of events the standard loop can execute next.

A situation is computed from the events, without a model. A comment gives the reason wherever events that a user could
ask for are excluded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inbackward_conformance.compatibility import StrEnum
from inbackward_conformance.plan import ALL, events

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inbackward_conformance.checking.strategies.graphs import Graph
    from inbackward_conformance.plan import Assignment


class EventKind(StrEnum):
    """Kinds of events, simplest first."""

    BACKWARD = "backward"
    TWO_LOSSES = "two losses"
    OPTION = "option"
    CHECKPOINT = "checkpoint"
    HOOK = "hook"
    FREEZING = "freezing"
    ATTACHMENT = "attachment"
    SURGERY = "surgery"
    NEW_DATA = "new data"
    STEP_BY_HAND = "step by hand"
    GRAD_MODE = "grad mode"
    SWAP = "swapped tensors"


@dataclass(frozen=True)
class Situation:
    """Where a run stands.

    Attributes:
        graph: the model.
        assignments: the assignments of the plan.
        dtype: the dtype that the model is cast to; empty for no cast.
        frozen: the frozen parameters.
        frozen_at_start: the frozen parameters of a newly built model.
        attached_more: assignments beside those of the plan.
        restructured: whether parameters were replaced or swapped after attachment.
        untied: how often parameters that share one tensor may have got tensors of their own, since the model was built.
        saved: `attached_more` and `untied` at the last save; None if there was none.
        forwards: number of `Forward`s.
        hooked: whether there are user's hooks on parameters.
    """

    graph: Graph
    assignments: tuple[Assignment, ...]
    dtype: str = ""
    frozen: frozenset[str] = frozenset()
    frozen_at_start: frozenset[str] = frozenset()
    attached_more: tuple[Assignment, ...] = ()
    restructured: bool = False
    untied: int = 0
    saved: tuple[tuple[Assignment, ...], int] | None = None
    forwards: int = 0
    hooked: bool = False

    def possible(self, kinds: Iterable[EventKind]) -> list[EventKind]:
        """Return which of these kinds can be drawn next."""
        return [kind for kind in kinds if self._is_possible(kind)]

    def after(self, executed: Iterable[events.Event]) -> Situation:
        """Return the situation after these events."""
        situation = self
        for event in executed:
            situation = situation._after(event)
        return situation

    def checkpoints(self) -> list[events.Event]:
        """Return the saves and loads that are possible.

        In a restructured model, the standard optimizer saves states of parameters that the model does not have any
        more; with further assignments, it saves more optimizers than a newly built model has, and once parameters no
        longer share a tensor, more states.
        """
        in_place: list[events.Event] = [] if self.restructured else [events.Save()]
        if not self.restructured and self.saved == (self.attached_more, self.untied):
            in_place.append(events.Load(rebuild=False))
        return [*in_place, events.Load()] if self.saved == ((), 0) else in_place

    def has_own_groups(self, assignment: Assignment) -> bool:
        """Return whether no parameter group, of any assignment, has parameters of this assignment and others."""
        if assignment.params == ALL or self.attached_more or self.restructured:
            return False
        own = self.graph.parameters_in(assignment.params)
        others = [self.graph.parameters_in(other.params) for other in self.assignments]
        return all(own >= theirs or own.isdisjoint(theirs) for theirs in others)

    def _is_possible(self, kind: EventKind) -> bool:
        match kind:
            case EventKind.CHECKPOINT:
                return bool(self.checkpoints())
            case EventKind.HOOK:  # a frozen parameter accepts none, and hooks of two kinds conflict
                return not self.frozen and not self.hooked
            case EventKind.FREEZING:  # a name may now belong to a frozen parameter, now to another
                return not self.restructured and len(self.graph.parameters) > 1
            case EventKind.SURGERY:  # for the same reason
                return not self.frozen
            case EventKind.ATTACHMENT:  # of frozen parameters: see `plans.frozen_parameters`
                return not self.frozen
        return True

    def _after(self, event: events.Event) -> Situation:
        match event:
            case events.Forward():
                return replace(self, forwards=self.forwards + 1)
            case events.AttachMore():
                return replace(self, attached_more=(*self.attached_more, event.assignment))
            case events.Attach():
                return replace(self, restructured=False, attached_more=())
            case events.Save():
                return replace(self, saved=(self.attached_more, self.untied))
            case events.Load(rebuild=True):
                frozen = self.frozen_at_start
                return replace(self, restructured=False, untied=0, attached_more=(), frozen=frozen, hooked=False)
            case events.ReplaceByCopy(submodule=""):
                return replace(self, hooked=False)
            case (
                events.LoadWeights(assign=True)
                | events.ReplaceByCopy()
                | events.ReplaceParameter()
                | events.SwapParameters()
            ):
                return replace(self, restructured=True, untied=self.untied + bool(self.graph.shared or self.graph.tied))
        return self._after_change(event)

    def _after_change(self, event: events.Event) -> Situation:
        """Return the situation after an event that neither attaches, nor replaces parameters."""
        match event:
            case events.Freeze():
                return replace(self, frozen=self.frozen | set(event.params))
            case events.Thaw():
                return replace(self, frozen=self.frozen - set(event.params))
            case events.Cast():
                return replace(self, dtype="" if event.dtype == "float32" else event.dtype)
            case events.ClipGradients() | events.DropGradients():
                return replace(self, hooked=True)
        return self
