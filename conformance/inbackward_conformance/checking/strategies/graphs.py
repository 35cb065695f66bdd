"""Graphs of layers: what `LayerGraph` is called with, which parameters are shared, which are frozen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from inbackward_conformance.checking.strategies.choice import one
from inbackward_conformance.plan import ALL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from inbackward_conformance.catalogue.layer_graph import Call
    from inbackward_conformance.checking.strategies.choice import Draw

DIMENSIONS = {"linear": {"weight": 2, "bias": 1}, "norm": {"weight": 1, "bias": 1}, "gain": {"factor": 0}}
"""The parameters of each kind of layer; two of as many dimensions have one shape."""

OFFSET = "offset"
"""The parameter that every forward uses: no graph freezes it, so there is always something to train."""

MAX_CALLS = 4
ONE_IN_FOUR = 3  # of 0 to 3


@dataclass(frozen=True)
class Graph:
    """A model of a plan.

    Attributes:
        calls: what `LayerGraph` is called with.
        shared: as in `Plan`.
    """

    calls: tuple[Call, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The layers, in the order of their first call."""
        return tuple(dict.fromkeys(name for name, _ in self.calls))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names of parameters; a shared one has several."""
        return (OFFSET, *(f"{layer}.{param}" for layer in self.layers for param in DIMENSIONS[kind_of(layer)]))

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The parameters, each by the name that it is not shared under."""
        return tuple(name for name in self.names if name not in dict(self.shared))

    @cached_property
    def unshared(self) -> tuple[str, ...]:
        """The parameters that have one name."""
        return tuple(name for name in self.parameters if name not in dict(self.shared).values())

    @cached_property
    def used(self) -> tuple[str, ...]:
        """The layers that what the last call gives depends on."""
        reached = {len(self.calls)}
        for number, (_, inputs) in reversed(list(enumerate(self.calls, 1))):
            if number in reached:
                reached.update(inputs)
        return tuple(
            layer
            for layer in self.layers
            if any(layer == name for number, (name, _) in enumerate(self.calls, 1) if number in reached)
        )

    def parameter(self, name: str) -> str:
        """Return the parameter behind one of its names."""
        return dict(self.shared).get(name, name)

    def names_of(self, parameter: str) -> list[str]:
        """Return all names of a parameter."""
        return [name for name in self.names if self.parameter(name) == parameter]

    def parameters_in(self, params: str | Iterable[Any]) -> set[str]:
        """Return the parameters that `Assignment.params` names; groups are not drawn."""
        return {self.parameter(name) for name in (self.names if params == ALL else params)}

    def parameters_of(self, layers: Iterable[str]) -> set[str]:
        """Return the parameters of some layers."""
        chosen = set(layers)
        return {self.parameter(name) for name in self.names if name.partition(".")[0] in chosen}


def kind_of(layer: str) -> str:
    """Return what a layer is named after."""
    return layer.rstrip("0123456789")


def dimensions_of(name: str) -> int:
    """Return how many dimensions a parameter has."""
    layer, _, attribute = name.partition(".")
    return DIMENSIONS[kind_of(layer)][attribute] if attribute else 1


def graph(draw: Draw) -> Graph:
    """Draw a graph: layers of each kind, used several times, in branches, or by nothing; parameters under two names."""
    calls = tuple(_calls(draw))
    return Graph(calls, tuple(_shared(draw, Graph(calls).names)))


def _calls(draw: Draw) -> Iterator[Call]:
    layers: list[str] = []
    for number in range(draw(st.integers(0, MAX_CALLS))):
        layer = one(draw, [*(f"{kind}{number}" for kind in DIMENSIONS), *dict.fromkeys(layers)])
        layers.append(layer)
        inputs = [(number,)] + [way for earlier in range(number) for way in ((earlier, number), (earlier,))]
        yield layer, one(draw, inputs)


def _shared(draw: Draw, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    sources: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for name in names:
        alike = sources[dimensions_of(name)]
        if name != OFFSET and alike and draw(st.integers(0, 3)) == ONE_IN_FOUR:
            yield name, one(draw, alike)
        elif name != OFFSET:
            alike.append(name)
