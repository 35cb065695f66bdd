"""Strategies for plans, one for each drawn requirement.

Each draws one feature, such as frozen parameters, so that an implementation that fails with it can pass the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from inbackward_conformance.checking.strategies.assignments import assignments
from inbackward_conformance.checking.strategies.choice import one, shuffled, some
from inbackward_conformance.checking.strategies.graphs import OFFSET, Graph, graph, tied_graph
from inbackward_conformance.checking.strategies.next_events import next_events
from inbackward_conformance.checking.strategies.situation import EventKind, Situation
from inbackward_conformance.plan import ALL, Plan
from inbackward_conformance.plan.events import Accumulate, Backward, Load, Save, StepByHand, TrainOrdinarily

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inbackward_conformance.checking.strategies.choice import Draw
    from inbackward_conformance.plan.events import Event

DTYPES = ("", "float64", "bfloat16")
MAX_EVENTS = 8
BACKWARDS = (EventKind.BACKWARD, EventKind.TWO_LOSSES)
HISTORY = (
    *BACKWARDS,
    EventKind.OPTION,
    EventKind.CHECKPOINT,
    EventKind.HOOK,
    EventKind.FREEZING,
    EventKind.ATTACHMENT,
    EventKind.SURGERY,
)


@st.composite
def structures(draw: st.DrawFn) -> Plan:
    """Draw models and assignments, without frozen parameters in the assignments."""
    model = graph(draw)
    frozen = _frozen(draw, model)
    among = set(model.parameters).difference(frozen) if frozen else None
    situation = Situation(
        model, assignments(draw, model, among=among), one(draw, DTYPES), frozenset(frozen), frozenset(frozen)
    )
    return plan_of(situation, (*_events(draw, situation, BACKWARDS), Backward()))


@st.composite
def shared_storage(draw: st.DrawFn) -> Plan:
    """Draw models with parameters that are views of others' memory, and sequences of events without user's hooks."""
    model = tied_graph(draw)
    drawn = tuple(each.parameter_by_parameter() for each in assignments(draw, model))
    situation = Situation(model, drawn, one(draw, DTYPES))
    kinds = [kind for kind in HISTORY if kind is not EventKind.HOOK]
    return plan_of(situation, (*_events(draw, situation, kinds), Backward()))


@st.composite
def grad_modes(draw: st.DrawFn) -> Plan:
    """Draw backwards inside other grad modes, and outside.

    All parameters have an optimizer: to the gradient that others accumulate in inference mode, autograd adds no more.
    """
    model = graph(draw)
    *others, last = assignments(draw, model)
    situation = Situation(model, shuffled(draw, (*others, replace(last, params=ALL))), one(draw, DTYPES))
    kinds = (*BACKWARDS, EventKind.GRAD_MODE, EventKind.OPTION, EventKind.CHECKPOINT)
    return plan_of(situation, (*_events(draw, situation, kinds), Backward()))


@st.composite
def frozen_parameters(draw: st.DrawFn) -> Plan:
    """Draw assignments with frozen parameters, which may be thawed later."""
    model = graph(draw)
    frozen = frozenset(_frozen(draw, model))
    situation = Situation(model, assignments(draw, model), frozen=frozen, frozen_at_start=frozen)
    return plan_of(situation, (*_events(draw, situation, (*BACKWARDS, EventKind.FREEZING)), Backward()))


@st.composite
def histories(draw: st.DrawFn) -> Plan:
    """Draw sequences of all kinds of events in training."""
    situation = initial_situation(draw)
    before = (TrainOrdinarily(),) if draw(st.booleans()) else ()
    return plan_of(situation, (*_events(draw, situation, HISTORY), Backward()), before)


@st.composite
def checkpoints(draw: st.DrawFn) -> Plan:
    """Draw training that is saved, continued, and reset to the checkpoint or resumed from it."""
    situation = initial_situation(draw)
    kinds = (EventKind.BACKWARD, EventKind.FREEZING, EventKind.OPTION)
    saved = (*_events(draw, situation, kinds, at_most=3), Save())
    loaded = (*saved, *_events(draw, situation.after(saved), kinds, at_most=3), Load(rebuild=draw(st.booleans())))
    return plan_of(situation, (*loaded, *_events(draw, situation.after(loaded), kinds, at_most=3), Backward()))


@st.composite
def attachments(draw: st.DrawFn) -> Plan:
    """Draw further attachments during training: of more optimizers, of copies, of detached models."""
    situation = initial_situation(draw)
    return plan_of(situation, (*_events(draw, situation, (EventKind.ATTACHMENT, EventKind.BACKWARD)), Backward()))


@st.composite
def new_data(draw: st.DrawFn) -> Plan:
    """Draw casts, and new data for parameters, during training."""
    model = graph(draw)
    situation = Situation(model, assignments(draw, model))
    return plan_of(situation, (*_events(draw, situation, (EventKind.NEW_DATA, EventKind.BACKWARD)), Backward()))


@st.composite
def swapped_tensors(draw: st.DrawFn) -> Plan:
    """Draw conversions that swap tensors during training."""
    model = graph(draw)
    situation = Situation(model, assignments(draw, model))
    kinds = (EventKind.SWAP, EventKind.BACKWARD, EventKind.OPTION)
    return plan_of(situation, (*_events(draw, situation, kinds), Backward()))


@st.composite
def steps_by_hand(draw: st.DrawFn) -> Plan:
    """Draw optimizers that are stepped by hand, and others that step inside backward."""
    model = graph(draw)
    by_hand = some(draw, model.parameters) or (OFFSET,)
    inside = [name for name in model.parameters if name not in by_hand]
    attached = assignments(draw, model, among=by_hand, hook=False)
    beside = draw(st.booleans())
    if inside and beside:
        attached = shuffled(draw, (*attached, *assignments(draw, model, among=inside)))
    situation = Situation(model, attached)
    events = _events(draw, situation, (*BACKWARDS, EventKind.STEP_BY_HAND, EventKind.OPTION))
    return plan_of(situation, (*events, Backward(), StepByHand()))


@st.composite
def hooked_and_unhooked(draw: st.DrawFn) -> Plan:
    """Draw optimizers without a hook for parameters that others have hooked, attached in any order."""
    model = graph(draw)
    hooked = assignments(draw, model, at_most=2)
    covered = {name for assignment in hooked for name in model.parameters_in(assignment.params)}
    without = assignments(draw, model, among=covered, at_most=2, hook=False)
    situation = Situation(model, shuffled(draw, (*hooked, *without)))
    return plan_of(situation, (*_events(draw, situation, BACKWARDS), Backward()))


@st.composite
def repeated_listings(draw: st.DrawFn) -> Plan:
    """Draw lists with a repeated parameter, by one name or by two."""
    model = graph(draw)
    names = [one(draw, model.names) for _ in range(draw(st.integers(1, 4)))]
    (plain,) = assignments(draw, model, at_most=1)
    repeated = replace(plain, params=shuffled(draw, (*names, one(draw, names)))).parameter_by_parameter()
    others = assignments(draw, model, at_most=2) if draw(st.booleans()) else ()
    situation = Situation(model, shuffled(draw, (repeated, *others)))
    return plan_of(situation, (*_events(draw, situation, BACKWARDS), Backward()))


@st.composite
def gradients_from_before(draw: st.DrawFn) -> Plan:
    """Draw gradients that are accumulated before attachment.

    The first backward reaches all of them, or a parameter of every assignment. If it reached no parameter of an
    assignment, no hook would run, and the reference implementation would step late (impl/README.md, Limitations).
    """
    model = graph(draw)
    drawn = assignments(draw, model)
    before = tuple(Accumulate(some(draw, model.layers)) for _ in range(draw(st.integers(1, 2))))
    reached = all(OFFSET in model.parameters_in(assignment.params) for assignment in drawn)
    first = Backward(some(draw, model.layers)) if reached else Backward()
    situation = Situation(model, drawn)
    return plan_of(situation, (first, *_events(draw, situation, BACKWARDS), Backward()), before)


def initial_situation(draw: Draw) -> Situation:
    """Draw a model and its assignments."""
    model = graph(draw)
    return Situation(model, assignments(draw, model), one(draw, DTYPES))


def plan_of(situation: Situation, events: tuple[Event, ...], before: tuple[Event, ...] = ()) -> Plan:
    """Return the plan that starts in a situation."""
    model = situation.graph
    name, arguments = "LayerGraph", tuple[Any, ...]((model.calls,) if model.calls else ())
    if model.tied:
        name, arguments = "TiedLayerGraph", (model.calls, model.tied)
    frozen = tuple(sorted(situation.frozen_at_start))
    return Plan(name, situation.assignments, events, before, model.shared, frozen, situation.dtype, arguments)


def _frozen(draw: Draw, model: Graph) -> tuple[str, ...]:
    return some(draw, [name for name in model.parameters if name != OFFSET])


def _events(
    draw: Draw, situation: Situation, kinds: Sequence[EventKind], *, at_most: int = MAX_EVENTS
) -> tuple[Event, ...]:
    """Draw events of these kinds; the plan needs a backward afterwards, which shows their effect."""
    events: list[Event] = []
    for _ in range(draw(st.integers(0, at_most))):
        drawn = next_events(draw, situation, one(draw, situation.possible(kinds)))
        situation = situation.after(drawn)
        events += drawn
    return tuple(events)
