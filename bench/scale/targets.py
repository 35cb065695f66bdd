"""What must not grow, and what was counted of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bench.scale.arrangements import ARRANGEMENTS, OURS, WAYS
from bench.scale.results import MAP
from bench.targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.scale.results import Count, Counts


def targets(counts: Counts) -> list[Target]:
    """Compare all counts."""
    return [*_gradients(counts), *_calls(counts), *_sent(counts)]


def _gradients(counts: Counts) -> Iterator[Target]:
    for arrangement in counts.arrangements("depth"):
        for way in OURS:
            ours = counts.along("depth", arrangement, way)
            if ARRANGEMENTS[arrangement].keeps_gradients:
                loop = counts.along("depth", arrangement, "loop")
                what = f"peak gradient bytes of {WAYS[way]}, over the standard loop's"
                most = max(one.gradients / other.gradients for one, other in zip(ours, loop, strict=True))
            else:
                what = f"peak gradient bytes of {WAYS[way]}, deepest model over shallowest"
                most = ours[-1].gradients / ours[0].gradients
            yield Target(what, ARRANGEMENTS[arrangement].label, most, 1.0)


def _calls(counts: Counts) -> Iterator[Target]:
    what = f"calls of the optimizer, {WAYS['handed']}"
    for name, arrangement in ARRANGEMENTS.items():
        found = [each for axis in counts.axes for each in counts.along(axis, name, "handed")]
        most = max(len(each.steps) - each.point.model_bytes / each.point.bucket_bytes for each in found)
        yield Target(f"{what} minus bytes over bucket size", arrangement.label, most, 1.0)
    for name in counts.arrangements("parameters"):
        calls = [len(each.steps) for each in counts.along("parameters", name, "handed")]
        yield Target(f"{what}, most parameters over fewest", ARRANGEMENTS[name].label, calls[-1] / calls[0], 1.0)


def _sent(counts: Counts) -> Iterator[Target]:
    for name, arrangement in ARRANGEMENTS.items():
        for way in OURS if arrangement.has_ranks else ():
            pairs = [
                pair
                for axis in counts.axes
                for pair in zip(counts.along(axis, name, way), counts.along(axis, name, "loop"), strict=True)
            ]
            for what, beside in (("bytes sent", _bytes_beside), ("collectives", _calls_beside)):
                figure = max(beside(ours, loop) for ours, loop in pairs)
                yield Target(
                    f"{what} more than the standard loop's and the map, {WAYS[way]}", arrangement.label, figure, 0
                )


def _bytes_beside(ours: Count, loop: Count) -> int:
    expected = Counter(loop.sent)
    if ARRANGEMENTS[ours.point.arrangement].looks_for_unused:
        expected[MAP] += 4 * ours.point.layers
    return _difference(Counter(ours.sent), expected)


def _calls_beside(ours: Count, loop: Count) -> int:
    without_map = (
        Counter({kind: calls for kind, calls in each.collectives.items() if kind != MAP}) for each in (ours, loop)
    )
    return _difference(*without_map)


def _difference(some: Counter[str], others: Counter[str]) -> int:
    return sum(abs(some[kind] - others[kind]) for kind in some | others)
