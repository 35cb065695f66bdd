"""Draws plans for FSDP2 and tensor parallelism, on device meshes of one and of two dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from inbackward_conformance.catalogue.parallel_layers import COLUMN_ALONE, ROW_ALONE
from inbackward_conformance.checking.strategies.assignments import assignments
from inbackward_conformance.checking.strategies.choice import one, some
from inbackward_conformance.checking.strategies.graphs import Graph, graph, kind_of
from inbackward_conformance.plan import Plan, Ranks
from inbackward_conformance.plan.events import (
    AccumulateUnsynchronised,
    Backward,
    DeclareLocal,
    FullyShard,
    Parallelize,
    SetOption,
)

if TYPE_CHECKING:
    from inbackward_conformance.checking.strategies.choice import Draw
    from inbackward_conformance.plan.events import Event

MAX_EVENTS = 5
NOT_FOR_DTENSORS = ("Adafactor", "Rprop")
"""Their steps use operators that torch has no sharding for."""
GROUPS = (Ranks(2), Ranks(2, tensor=2), Ranks(3), Ranks(4, replicate=2), Ranks(4, tensor=2))


@st.composite
def sharded_plans(draw: st.DrawFn) -> Plan:
    """Draw training of a sharded model, attached afterwards.

    FSDP2 shards no 0-dim parameters. A parameter that layers share is sharded with the whole model.
    """
    group = one(draw, GROUPS)
    model = graph(draw, kinds=("linear", "norm"), shares=not group.tensor)
    parallel = _parallel(draw, model) if group.tensor else ()
    layers = () if model.shared else some(draw, model.layers)
    options = {} if draw(st.booleans()) else {"reshard_after_forward": False}
    events = tuple(_event(draw, model, group) for _ in range(draw(st.integers(0, MAX_EVENTS))))
    return Plan(
        "LayerGraph",
        assignments(draw, model, at_most=2, without=NOT_FOR_DTENSORS),
        (*(DeclareLocal() for _ in parallel), *events, Backward()),
        (*parallel, FullyShard(options, layers)),
        shared=model.shared,
        arguments=(model.calls,) if model.calls else (),
        ranks=group,
    )


def _parallel(draw: Draw, model: Graph) -> tuple[Event, ...]:
    linear = some(draw, [layer for layer in model.layers if kind_of(layer) == "linear"])
    return (Parallelize({layer: one(draw, [COLUMN_ALONE, ROW_ALONE]) for layer in linear}),)


def _event(draw: Draw, model: Graph, group: Ranks) -> Event:
    match draw(st.integers(0, 4)):
        case 1:
            return Backward(some(draw, model.layers))
        case 2:
            return AccumulateUnsynchronised()
        case 3:
            return SetOption("lr", one(draw, [0.05, 0.0]))
        case 4 if group.replicate:
            return AccumulateUnsynchronised(switch="set_requires_all_reduce")
    return Backward()
