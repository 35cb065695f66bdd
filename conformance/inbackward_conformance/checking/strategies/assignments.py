"""Draws assignments of optimizers to arbitrary, overlapping subsets of the parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from inbackward_conformance.checking.strategies.choice import at_least_one, one
from inbackward_conformance.plan import ALL, Assignment, Need

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from inbackward_conformance.checking.strategies.choice import Draw
    from inbackward_conformance.checking.strategies.graphs import Graph

MAX_ASSIGNMENTS = 3

OPTIMIZERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "maximize": True}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.03, "betas": (0.8, 0.9), "foreach": True}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01, "amsgrad": True, "fused": True}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "centered": True}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1}),
    ("Adadelta", {"lr": 1.0}),
    ("Adamax", {"lr": 0.01}),
    ("NAdam", {"lr": 0.01}),
    ("RAdam", {"lr": 0.01}),
    ("ASGD", {"lr": 0.05, "t0": 2.0}),
    ("Rprop", {"lr": 0.01}),
    ("Adafactor", {"lr": 0.01}),
)
"""Simplest first, since a failure shrinks to it. All configurations of all classes are in the chapter equivalence."""


def assignments(
    draw: Draw,
    graph: Graph,
    *,
    among: Iterable[str] | None = None,
    at_most: int = MAX_ASSIGNMENTS,
    hook: bool = True,
    only: str = "",
    without: Collection[str] = (),
) -> tuple[Assignment, ...]:
    """Draw assignments, each of some parameters in any order, by any of their names, without repetition.

    `among` are the parameters to choose from; None for all, which then may be `ALL`. `only` is the class to choose;
    empty for any. `without` are the classes to leave out.
    """
    optimizers = [
        Assignment(name, options, hook=hook, need=Need(proportional=only == "SGD", number=number))
        for number, (name, options) in enumerate(OPTIMIZERS)
        if only in {"", name} and name not in without
    ]
    return tuple(_assignment(draw, graph, among, optimizers) for _ in range(draw(st.integers(1, at_most))))


def _assignment(
    draw: Draw,
    graph: Graph,
    among: Iterable[str] | None,
    optimizers: Sequence[Assignment],
) -> Assignment:
    params: Any = ALL
    if among is not None or draw(st.booleans()):
        chosen = at_least_one(draw, graph.parameters if among is None else sorted(among))
        params = tuple(one(draw, graph.names_of(param)) for param in chosen)
    return replace(one(draw, optimizers), params=params)
