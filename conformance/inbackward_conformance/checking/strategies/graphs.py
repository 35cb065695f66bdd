"""Draws models: the arguments of `LayerGraph`, and which parameters are shared."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
"""The parameters of each kind of layer, with their number of dimensions, which determines their shape."""

OFFSET = "offset"
"""The parameter that every forward uses; it is never frozen, so backward always has a gradient to compute."""

MAX_CALLS = 4


@dataclass(frozen=True)
class Graph:
    """The structure of a model.

    Attributes:
        calls: the argument of `LayerGraph`.
        shared: as in `Plan`.
        tied: the argument of `TiedLayerGraph`.
    """

    calls: tuple[Call, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()
    tied: tuple[tuple[str, str], ...] = ()

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The layers, in the order of their first call."""
        return tuple(dict.fromkeys(name for name, _ in self.calls))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names of parameters; a shared parameter has several."""
        return (OFFSET, *(f"{layer}.{param}" for layer in self.layers for param in DIMENSIONS[kind_of(layer)]))

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The parameters, each by its own name, not one that it replaces."""
        return tuple(name for name in self.names if name not in dict(self.shared))

    @cached_property
    def unshared(self) -> tuple[str, ...]:
        """The parameters with one name."""
        return tuple(name for name in self.parameters if name not in dict(self.shared).values())

    @cached_property
    def used(self) -> tuple[str, ...]:
        """The layers that the output depends on."""
        reached = {len(self.calls)}
        for number, (_, inputs) in reversed(list(enumerate(self.calls, 1))):
            if number in reached:
                reached.update(inputs)
        used = {name for number, (name, _) in enumerate(self.calls, 1) if number in reached}
        return tuple(layer for layer in self.layers if layer in used)

    def parameter(self, name: str) -> str:
        """Return the parameter of this name."""
        return dict(self.shared).get(name, name)

    def names_of(self, parameter: str) -> list[str]:
        """Return all names of a parameter."""
        return [name for name in self.names if self.parameter(name) == parameter]

    def parameters_in(self, params: str | Iterable[Any]) -> set[str]:
        """Return the parameters in `Assignment.params`, which has no groups here."""
        return {self.parameter(name) for name in (self.names if params == ALL else params)}

    def parameters_of(self, layers: Iterable[str]) -> set[str]:
        """Return the parameters of some layers."""
        chosen = set(layers)
        return {self.parameter(name) for name in self.names if name.partition(".")[0] in chosen}


def kind_of(layer: str) -> str:
    """Return the kind of a layer, which its name begins with."""
    return layer.rstrip("0123456789")


def dimensions_of(name: str) -> int:
    """Return the number of dimensions of a parameter."""
    layer, _, attribute = name.partition(".")
    return DIMENSIONS[kind_of(layer)][attribute] if attribute else 1


def graph(draw: Draw, kinds: Sequence[str] = tuple(DIMENSIONS), *, shares: bool = True) -> Graph:
    """Draw a graph of layers of some kinds, which may be used several times, in branches or not at all.

    `shares` is whether layers may share parameters.
    """
    calls = tuple(_calls(draw, kinds))
    return Graph(calls, tuple(_shared(draw, Graph(calls).names)) if shares else ())


def tied_graph(draw: Draw) -> Graph:
    """Draw a graph with parameters that are views of others' memory: the whole of it, or a part."""
    drawn = graph(draw)
    return replace(drawn, tied=tuple(_tied(draw, drawn.parameters)))


def _tied(draw: Draw, parameters: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, name in enumerate(parameters):
        sources = [other for other in parameters[:number] if dimensions_of(other) >= dimensions_of(name)]
        if sources and draw(st.booleans()):
            yield name, one(draw, sources)


def _calls(draw: Draw, kinds: Sequence[str]) -> Iterator[Call]:
    layers: list[str] = []
    for number in range(draw(st.integers(0, MAX_CALLS))):
        layer = one(draw, [*(f"{kind}{number}" for kind in kinds), *dict.fromkeys(layers)])
        layers.append(layer)
        inputs = [(number,)] + [choice for earlier in range(number) for choice in ((earlier, number), (earlier,))]
        yield layer, one(draw, inputs)


def _shared(draw: Draw, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    sources: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for name in names:
        alike = sources[dimensions_of(name)]
        if name != OFFSET and alike and draw(st.integers(0, 3)) == 3:  # noqa: PLR2004 (one in four)
            yield name, one(draw, alike)
        elif name != OFFSET:
            alike.append(name)
