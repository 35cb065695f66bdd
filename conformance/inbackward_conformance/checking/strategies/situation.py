"""What can happen next in a run: for each kind of event those that the standard loop can follow.

A situation is followed from event to event, without a model. Where a sequence is left out that an implementation could
be asked for, the reason stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from inbackward_conformance.checking.strategies.assignments import assignments
from inbackward_conformance.checking.strategies.choice import at_least_one, one, some
from inbackward_conformance.checking.strategies.graphs import OFFSET, Graph, dimensions_of
from inbackward_conformance.plan import ALL
from inbackward_conformance.plan.events import (
    Attach,
    AttachMore,
    AutocastBackward,
    Backward,
    BackwardThrough,
    Cast,
    ClipGradients,
    Detach,
    DropGradients,
    Event,
    Forward,
    Freeze,
    FunctionalBackward,
    Load,
    LoadWeights,
    PenalizedBackward,
    Power,
    ReplaceByCopy,
    ReplaceParameter,
    Save,
    Scheduler,
    SetData,
    SetOption,
    StartSchedule,
    StepByHand,
    StepSchedules,
    SwapParameters,
    Thaw,
    TrainOrdinarily,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inbackward_conformance.checking.strategies.choice import Draw
    from inbackward_conformance.plan import Assignment

SCHEDULERS = (
    Scheduler("StepLR", {"step_size": 2}),
    Scheduler("ExponentialLR", {"gamma": 0.7}),
    Scheduler("CosineAnnealingLR", {"T_max": 3}),
    Scheduler("LambdaLR", {"lr_lambda": Power(0.5)}),
)


class EventKind(StrEnum):
    """Kinds of events, most harmless first."""

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


@dataclass(frozen=True)
class Situation:
    """Where a run stands.

    Attributes:
        graph: its model.
        assignments: those of its plan.
        dtype: what the model is cast to.
        frozen: which parameters are.
        frozen_at_start: which are in a model that is built anew.
        attached_more: how many further assignments there are.
        torn: whether the model has parameters that were not there at attachment, or that have changed places.
        saved: how many further assignments there were when it was saved last; None: it was not.
        forwards: how many there were without a backward of their own.
        hooked: whether a user's hooks are on the parameters.
    """

    graph: Graph
    assignments: tuple[Assignment, ...]
    dtype: str = ""
    frozen: frozenset[str] = frozenset()
    frozen_at_start: frozenset[str] = frozenset()
    attached_more: int = 0
    torn: bool = False
    saved: int | None = None
    forwards: int = 0
    hooked: bool = False

    def possible(self, kinds: Iterable[EventKind]) -> list[EventKind]:
        """Return which of these kinds can be drawn from here."""
        return [kind for kind in kinds if self._can_be(kind)]

    def draw(self, kind: EventKind, draw: Draw) -> tuple[Event, ...]:
        """Draw an event of that kind, or several that belong together."""
        if kind is EventKind.STEP_BY_HAND:
            return (StepByHand(),)
        return {
            EventKind.BACKWARD: self._backward,
            EventKind.TWO_LOSSES: self._two_losses,
            EventKind.OPTION: self._option,
            EventKind.CHECKPOINT: self._checkpoint,
            EventKind.HOOK: self._hook,
            EventKind.FREEZING: self._freezing,
            EventKind.ATTACHMENT: self._attachment,
            EventKind.SURGERY: self._surgery,
            EventKind.NEW_DATA: self._new_data,
        }[kind](draw)

    def after(self, events: Iterable[Event]) -> Situation:
        """Return where the run stands then."""
        situation = self
        for event in events:
            situation = situation._after(event)
        return situation

    def _can_be(self, kind: EventKind) -> bool:
        match kind:
            case EventKind.CHECKPOINT:
                return bool(self._checkpoints())
            case EventKind.HOOK:  # none can be hung on a frozen parameter, and those of two kinds do not get on
                return not self.frozen and not self.hooked
            case EventKind.FREEZING:  # a name may come to stand for a frozen parameter and for another
                return not self.torn and len(self.graph.parameters) > 1
            case EventKind.SURGERY:  # the same
                return not self.frozen
            case EventKind.ATTACHMENT:  # of a frozen parameter: see `plans.frozen`
                return not self.frozen
        return True

    def _backward(self, draw: Draw) -> tuple[Event, ...]:
        """Draw a backward, whatever it goes through."""
        match draw(st.integers(0, 7)):
            case 1 | 2:
                return (Backward(some(draw, self.graph.layers)),)
            case 3:
                return (Backward(scale=one(draw, [0.0, -1.0]), create_graph=draw(st.booleans())),)
            case 4:
                trained = [name for name in self.graph.parameters if name not in self.frozen]
                return (Backward(inputs=at_least_one(draw, trained)),)
            case 5:
                return (FunctionalBackward(some(draw, self.graph.parameters)),)
            case 6:
                return (PenalizedBackward("inputs"),)
            case 7 if not self.dtype:
                return (AutocastBackward("bfloat16"),)
        return (Backward(),)

    def _two_losses(self, draw: Draw) -> tuple[Event, ...]:
        """Draw two forwards, then a backward through each: the first must step nothing that the second has saved."""
        skip = some(draw, self.graph.layers)
        first = self.graph.parameters_of(layer for layer in self.graph.layers if layer not in skip)
        other = tuple(layer for layer in self.graph.layers if self.graph.parameters_of([layer]) & first)
        backwards = (BackwardThrough(self.forwards), BackwardThrough(self.forwards + 1))
        return (Forward(skip), Forward(other), *(backwards[::-1] if draw(st.booleans()) else backwards))

    def _option(self, draw: Draw) -> tuple[Event, ...]:
        """Draw a change of options, by hand or by a scheduler; by hand where no group has parameters beside those."""
        match draw(st.integers(0, 3)):
            case 2:
                return (StartSchedule(one(draw, SCHEDULERS)),)
            case 3:
                return (StepSchedules(),)
        alone = [tuple(map(str, found.params)) for found in self.assignments if self._owns_its_groups(found)]
        option, value = one(draw, [("lr", 0.05), ("lr", 0.002), ("lr", 0.0), ("weight_decay", 0.3)])
        return (SetOption(option, value, one(draw, [(), *alone])),)

    def _checkpoint(self, draw: Draw) -> tuple[Event, ...]:
        """Draw a save, or a load of what was saved last."""
        return (one(draw, self._checkpoints()),)

    def _checkpoints(self) -> list[Event]:
        """Return what can be done about checkpoints.

        Of a model that is torn the standard optimizer saves states that no parameter of the model has any more, and of
        one with further assignments it saves more optimizers than a model has that is built anew.
        """
        in_place: list[Event] = [] if self.torn else [Save()]
        if not self.torn and self.saved == self.attached_more:
            in_place.append(Load(rebuild=False))
        return [*in_place, Load()] if self.saved == 0 else in_place

    def _hook(self, draw: Draw) -> tuple[Event, ...]:
        """Draw a user's hooks."""
        by = one(draw, ["register_hook", "register_post_accumulate_grad_hook", ""])
        return (ClipGradients(by) if by else DropGradients(at_least_one(draw, self.graph.parameters)),)

    def _freezing(self, draw: Draw) -> tuple[Event, ...]:
        """Draw what freezes and thaws parameters."""
        if self.frozen and draw(st.booleans()):
            return (Thaw(at_least_one(draw, sorted(self.frozen))),)
        return (Freeze(at_least_one(draw, [name for name in self.graph.parameters if name != OFFSET])),)

    def _attachment(self, draw: Draw) -> tuple[Event, ...]:
        """Draw another attachment: one more, of a copy, or of what was detached, with or without training between.

        It is of parameters that have been attached before: others may hold a gradient by now, which is what
        `plans.gradients_from_before` is for. A torn model has such parameters; ordinary training frees their gradients.
        """
        if not self.torn and draw(st.booleans()):
            covered = set().union(*(self.graph.parameters_in(given.params) for given in self.assignments))
            among = None if covered.issuperset(self.graph.parameters) else covered
            (more,) = assignments(draw, self.graph, among=among, at_most=1)
            return (AttachMore(more),)
        plain: Event = ReplaceByCopy() if draw(st.booleans()) else Detach()
        trained = draw(st.booleans()) or self.torn
        return (plain, TrainOrdinarily(), Attach()) if trained else (plain, Attach())

    def _surgery(self, draw: Draw) -> tuple[Event, ...]:
        """Draw a change of the model after which parameters are others, or in other places."""
        pairs = [
            (first, second)
            for first in self.graph.unshared
            for second in self.graph.unshared
            if first < second and OFFSET not in {first, second} and dimensions_of(first) == dimensions_of(second)
        ]
        match draw(st.integers(0, 3)):
            case 1:
                return (ReplaceParameter(one(draw, self.graph.names)),)
            case 2 if self.graph.layers:
                return (ReplaceByCopy(one(draw, self.graph.layers)),)
            case 3 if pairs:
                return (SwapParameters(*one(draw, pairs)),)
        return (LoadWeights(draw(st.booleans())),)

    def _new_data(self, draw: Draw) -> tuple[Event, ...]:
        """Draw other data, or another dtype, for the same Parameter objects."""
        if draw(st.booleans()):
            return (Cast(one(draw, ["float64", "bfloat16", "float32"])),)
        return (SetData(one(draw, self.graph.parameters), one(draw, ["data", "set_"])),)

    def _after(self, event: Event) -> Situation:
        match event:
            case Forward():
                return replace(self, forwards=self.forwards + 1)
            case AttachMore():
                return replace(self, attached_more=self.attached_more + 1)
            case Attach():
                return replace(self, torn=False, attached_more=0)
            case Save():
                return replace(self, saved=self.attached_more)
            case Load(rebuild=True):
                return replace(self, torn=False, attached_more=0, frozen=self.frozen_at_start, hooked=False)
            case ReplaceByCopy(submodule=""):
                return replace(self, hooked=False)
            case LoadWeights(assign=True) | ReplaceByCopy() | ReplaceParameter() | SwapParameters():
                return replace(self, torn=True)
        return self._after_change(event)

    def _after_change(self, event: Event) -> Situation:
        """Follow what leaves alone which parameters there are, and what is attached to them."""
        match event:
            case Freeze():
                return replace(self, frozen=self.frozen | set(event.params))
            case Thaw():
                return replace(self, frozen=self.frozen - set(event.params))
            case Cast():
                return replace(self, dtype="" if event.dtype == "float32" else event.dtype)
            case ClipGradients() | DropGradients():
                return replace(self, hooked=True)
        return self

    def _owns_its_groups(self, assignment: Assignment) -> bool:
        if assignment.params == ALL or self.attached_more or self.torn:
            return False
        own = self.graph.parameters_in(assignment.params)
        others = [self.graph.parameters_in(other.params) for other in self.assignments]
        return all(own >= theirs or own.isdisjoint(theirs) for theirs in others)
