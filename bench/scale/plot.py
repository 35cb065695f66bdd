"""Draws the counts, for a light page and for a dark one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.panels import COLORS, panels
from bench.plot import SHOWN
from bench.scale.arrangements import ARRANGEMENTS, WAYS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

    from bench.scale.results import Count, Counts

# Name of the way, that of the variant in the other plot, marker, and its size: where lines coincide, all show.
DRAWN = (("loop", "", "o", 9), ("apply", "apply", "s", 5.5), ("handed", "handed-4M", "o", 3))


def plot(counts: Counts, path: Path, theme: str) -> None:
    """Write the figure as SVG, for a "light" or a "dark" page."""
    with panels(4, path, theme, "Scale of inbackward") as (one_process, sharded, calls, sent):
        for ax, arrangement in ((one_process, "alone"), (sharded, "fsdp")):
            _lines(ax, theme, counts, ("depth", arrangement), lambda each: each.gradients / 2**20)
            ax.set_title(f"Peak gradient memory in MiB, by layers: {ARRANGEMENTS[arrangement].label}")
            ax.set_ylim(bottom=0)
        _lines(calls, theme, counts, ("parameters", "alone"), lambda each: len(each.steps))
        calls.set_yscale("log", base=2)
        calls.yaxis.set_major_formatter("{x:.0f}")
        calls.set_title("Calls of the optimizer, by parameters: one process")
        for arrangement in ("ddp", "fsdp"):
            place, height = _lines(sent, theme, counts, ("ranks", arrangement), _sent_mib)
            label = ARRANGEMENTS[arrangement].label
            sent.annotate(label, (place, height), xytext=(0, 8), textcoords="offset points", ha="center")
        sent.set_title("What a rank sends in MiB, by ranks")
        sent.set_ylim(bottom=0)
        sent.margins(y=0.12)


def _sent_mib(count: Count) -> float:
    return sum(count.sent.values()) / 2**20


def _lines(
    ax: Axes, theme: str, counts: Counts, where: tuple[str, str], height: Callable[[Count], float]
) -> tuple[float, float]:
    """Draw a line for each way of training. Return the last point of the last one."""
    axis, arrangement = where
    colors = {name: both[theme == "dark"] for name, _, *both in SHOWN}
    for way, variant, marker, markersize in DRAWN:
        found = counts.along(axis, arrangement, way)
        places = [each.point.ranks if axis == "ranks" else each.point.layers for each in found]
        heights = [height(each) for each in found]
        ax.plot(
            places,
            heights,
            label=WAYS[way].replace("`", ""),
            color=colors.get(variant, COLORS[theme][0]),
            marker=marker,
            markersize=markersize,
        )
        ax.set_xscale("log", base=2)
        ax.set_xticks(places, [f"{place:,}" for place in places])
    return places[-1], heights[-1]
