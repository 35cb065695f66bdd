"""Draws plans for DDP, with buckets, unused parameters, and gradients that are not synchronised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from inbackward_conformance.checking.strategies.assignments import assignments
from inbackward_conformance.checking.strategies.choice import one, some
from inbackward_conformance.checking.strategies.graphs import Graph, graph
from inbackward_conformance.plan import Plan, Ranks
from inbackward_conformance.plan.events import AccumulateUnsynchronised, Backward, PerRank, SetOption, WrapDDP

if TYPE_CHECKING:
    from inbackward_conformance.checking.strategies.choice import Draw
    from inbackward_conformance.plan.events import Event

MAX_EVENTS = 5
TINY_BUCKET_MB = 1e-5
GROUPS = [(Ranks(2, fixed=True), ""), (Ranks(1), ""), (Ranks(3, tolerance=2e-6), "SGD")]
"""Process groups, each with the only class of optimizer for its plans; empty for any.

A gradient that is zero in exact arithmetic is a rounding error, which depends on the order of the sum over three or
more ranks; an optimizer that normalizes gradients makes a whole step of it. So plans of any optimizer have two ranks,
on larger clusters too. The tolerance is for two roundings a step, as in the chapter ddp, and six steps.
"""


@st.composite
def ddp_plans(draw: st.DrawFn) -> Plan:
    """Draw training under DistributedDataParallel, on one to three ranks."""
    ranks, only = one(draw, GROUPS)
    model = graph(draw)
    assigned = assignments(draw, model, at_most=2, only=only)
    options = _options(draw, model)
    events = tuple(_event(draw, model, options) for _ in range(draw(st.integers(0, MAX_EVENTS))))
    wrap = WrapDDP(options)
    attached_first = draw(st.booleans())
    return Plan(
        "LayerGraph",
        assigned,
        (*((wrap,) if attached_first else ()), *events, Backward()),
        () if attached_first else (wrap,),
        shared=model.shared,
        dtype=one(draw, ["", "float64"]),
        arguments=(model.calls,) if model.calls else (),
        ranks=ranks,
    )


def _options(draw: Draw, model: Graph) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["bucket_cap_mb"] = TINY_BUCKET_MB
    if draw(st.booleans()):
        options["gradient_as_bucket_view"] = True
    if set(model.used) != set(model.layers):
        return {**options, "find_unused_parameters": True}
    return options | one(draw, [{}, {"find_unused_parameters": True}, {"static_graph": True}])


def _event(draw: Draw, model: Graph, options: dict[str, Any]) -> Event:
    match draw(st.integers(0, 4)):
        case 1 if "find_unused_parameters" in options:
            return Backward(some(draw, model.layers))
        case 2 if "find_unused_parameters" in options:
            return PerRank((Backward(), Backward(some(draw, model.layers))))
        case 3 if "static_graph" not in options:  # with a static graph, the first backward has to synchronise
            return AccumulateUnsynchronised(some(draw, model.layers) if "find_unused_parameters" in options else ())
        case 4:
            return SetOption("lr", one(draw, [0.05, 0.0]))
    return Backward()
