"""Draws the next events of a run: a function for each kind of event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from inbackward_conformance.checking.strategies.assignments import assignments
from inbackward_conformance.checking.strategies.choice import at_least_one, one, some
from inbackward_conformance.checking.strategies.graphs import OFFSET, dimensions_of
from inbackward_conformance.checking.strategies.situation import EventKind, Situation
from inbackward_conformance.plan import events

if TYPE_CHECKING:
    from inbackward_conformance.checking.strategies.choice import Draw

SCHEDULERS = (
    events.Scheduler("StepLR", {"step_size": 2}),
    events.Scheduler("ExponentialLR", {"gamma": 0.7}),
    events.Scheduler("CosineAnnealingLR", {"T_max": 3}),
    events.Scheduler("LambdaLR", {"lr_lambda": events.Power(0.5)}),
)


def next_events(draw: Draw, situation: Situation, kind: EventKind) -> tuple[events.Event, ...]:
    """Draw an event of that kind, or several that belong together."""
    if kind is EventKind.STEP_BY_HAND:
        return (events.StepByHand(),)
    return {
        EventKind.BACKWARD: _backward,
        EventKind.TWO_LOSSES: _two_losses,
        EventKind.OPTION: _option,
        EventKind.CHECKPOINT: _checkpoint,
        EventKind.HOOK: _hook,
        EventKind.FREEZING: _freezing,
        EventKind.ATTACHMENT: _attachment,
        EventKind.SURGERY: _surgery,
        EventKind.NEW_DATA: _new_data,
        EventKind.GRAD_MODE: _grad_mode,
        EventKind.SWAP: _swap,
    }[kind](draw, situation)


def _backward(draw: Draw, situation: Situation) -> tuple[events.Event, ...]:
    graph = situation.graph
    match draw(st.integers(0, 7)):
        case 1 | 2:
            return (events.Backward(some(draw, graph.layers)),)
        case 3:
            return (events.Backward(scale=one(draw, [0.0, -1.0]), create_graph=draw(st.booleans())),)
        case 4:
            trained = [name for name in graph.parameters if name not in situation.frozen]
            return (events.Backward(inputs=at_least_one(draw, trained)),)
        case 5:
            return (events.FunctionalBackward(some(draw, graph.parameters)),)
        case 6:
            return (events.PenalizedBackward("inputs"),)
        case 7 if not situation.dtype:
            return (events.AutocastBackward("bfloat16"),)
    return (events.Backward(),)


def _two_losses(draw: Draw, situation: Situation) -> tuple[events.Event, ...]:
    """Draw two forwards, then a backward through each; the first must not step what the second graph has saved."""
    graph = situation.graph
    skip = some(draw, graph.layers)
    first = graph.parameters_of(layer for layer in graph.layers if layer not in skip)
    others = tuple(layer for layer in graph.layers if graph.parameters_of([layer]) & first)
    backwards = (events.BackwardThrough(situation.forwards), events.BackwardThrough(situation.forwards + 1))
    return (events.Forward(skip), events.Forward(others), *(backwards[::-1] if draw(st.booleans()) else backwards))


def _option(draw: Draw, situation: Situation) -> tuple[events.Event, ...]:
    """Draw a change of options by a scheduler or by hand; by hand only in groups without other parameters."""
    match draw(st.integers(0, 3)):
        case 2:
            return (events.StartSchedule(one(draw, SCHEDULERS)),)
        case 3:
            return (events.StepSchedules(),)
    own = [tuple(map(str, assigned.params)) for assigned in situation.assignments if situation.has_own_groups(assigned)]
    option, value = one(draw, [("lr", 0.05), ("lr", 0.002), ("lr", 0.0), ("weight_decay", 0.3)])
    return (events.SetOption(option, value, one(draw, [(), *own])),)


def _checkpoint(draw: Draw, situation: Situation) -> tuple[events.Event, ...]:
    return (one(draw, situation.checkpoints()),)


def _hook(draw: Draw, situation: Situation) -> tuple[events.Event, ...]:
    by = one(draw, ["register_hook", "register_post_accumulate_grad_hook", ""])
    return (events.ClipGradients(by) if by else events.DropGradients(at_least_one(draw, situation.graph.parameters)),)


def _freezing(draw: Draw, situation: Situation) -> tuple[events.Event, ...]:
    if situation.frozen and draw(st.booleans()):
        return (events.Thaw(at_least_one(draw, sorted(situation.frozen))),)
    return (events.Freeze(at_least_one(draw, [name for name in situation.graph.parameters if name != OFFSET])),)


def _attachment(draw: Draw, situation: Situation) -> tuple[events.Event, ...]:
    """Draw one more assignment, or an attachment of a copy or a detached model, with or without training before it.

    One more assignment is of parameters with an optimizer. Others may have accumulated a gradient, for which there is
    `plans.gradients_from_before`. So may new parameters of a restructured model; ordinary training frees it.
    """
    graph = situation.graph
    if not situation.restructured and draw(st.booleans()):
        covered = set().union(*(graph.parameters_in(assigned.params) for assigned in situation.assignments))
        among = None if covered.issuperset(graph.parameters) else covered
        (more,) = assignments(draw, graph, among=among, at_most=1)
        return (events.AttachMore(more),)
    detached: events.Event = events.ReplaceByCopy() if draw(st.booleans()) else events.Detach()
    trained = draw(st.booleans()) or situation.restructured
    return (detached, events.TrainOrdinarily(), events.Attach()) if trained else (detached, events.Attach())


def _surgery(draw: Draw, situation: Situation) -> tuple[events.Event, ...]:
    graph = situation.graph
    pairs = [
        (first, second)
        for first in graph.unshared
        for second in graph.unshared
        if first < second and OFFSET not in {first, second} and dimensions_of(first) == dimensions_of(second)
    ]
    match draw(st.integers(0, 3)):
        case 1:
            return (events.ReplaceParameter(one(draw, graph.names)),)
        case 2 if graph.layers:
            return (events.ReplaceByCopy(one(draw, graph.layers)),)
        case 3 if pairs:
            return (events.SwapParameters(*one(draw, pairs)),)
    return (events.LoadWeights(draw(st.booleans())),)


def _new_data(draw: Draw, situation: Situation) -> tuple[events.Event, ...]:
    """Draw other data or another dtype for the same Parameter objects."""
    if draw(st.booleans()):
        return (events.Cast(one(draw, ["float64", "bfloat16", "float32"])),)
    return (events.SetData(one(draw, situation.graph.parameters), one(draw, ["data", "set_"])),)


def _grad_mode(draw: Draw, situation: Situation) -> tuple[events.Event, ...]:
    """Draw a backward inside another grad mode."""
    return (events.Backward(some(draw, situation.graph.layers), inside=one(draw, ["inference_mode", "no_grad"])),)


def _swap(draw: Draw, _: Situation) -> tuple[events.Event, ...]:
    """Draw a conversion that swaps the tensors under the Parameter objects."""
    dtype = one(draw, ["", "float64", "bfloat16", "float32"])
    return (events.Cast(dtype, swap=True) if dtype else events.LoadWeights(swap=True),)
