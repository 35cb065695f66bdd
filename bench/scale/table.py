"""Writes counts into the cells of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.scale.arrangements import WAYS
from bench.scale.results import MAP

if TYPE_CHECKING:
    from bench.scale.results import Count

AXES = {"depth": "layers", "parameters": "parameters", "ranks": "ranks"}
KINDS = {"all_reduce": "all-reduce", "reduce_scatter": "reduce-scatter", "all_gather": "all-gather", MAP: "map"}
KEPT = ["parameters", "state", "gradients, at most"]
STEPPED = ["calls of the optimizer", "parameters a call"]


def rows_of(axis: str, counts: list[Count]) -> list[list[str]]:
    """Return the rows of a table, the head first. Collectives that are not used have no column."""
    kinds = [kind for kind in KINDS if any(kind in each.sent for each in counts)]
    head = [AXES[axis], "", *(KINDS[kind] for kind in kinds), *KEPT, *STEPPED]
    return [head, *(_row(axis, each, kinds) for each in counts)]


def size(nbytes: int) -> str:
    """Write a number of bytes in the largest unit that gives at least 1, to six digits."""
    for exponent, unit in ((20, "MiB"), (10, "KiB")):
        if nbytes >= 1 << exponent:
            return f"{nbytes / (1 << exponent):.6g} {unit}"
    return f"{nbytes} B"


def _row(axis: str, count: Count, kinds: list[str]) -> list[str]:
    point, calls = count.point, len(count.steps)
    varied = point.ranks if axis == "ranks" else point.layers
    sent = [f"{size(count.sent[kind])} in {count.collectives[kind]:,}" if kind in count.sent else "" for kind in kinds]
    fewest, most = min(count.steps), max(count.steps)
    each = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    kept = [size(nbytes) for nbytes in (count.parameters, count.state, count.gradients)]
    return [f"{varied:,}", WAYS[point.way], *sent, *kept, f"{calls:,}", each]
