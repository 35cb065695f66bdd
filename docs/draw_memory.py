"""Draws what is in memory during one step, for `docs/why.md`: `python -m docs.draw_memory`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.panels import COLORS, panels
from docs.memory import KINDS, count

if TYPE_CHECKING:
    from docs.memory import Step
    from matplotlib.axes import Axes

DOCS = Path(__file__).parent
THEMES = ("light", "dark")
FILLS = {
    "light": ("#8795a3", "#b9c4ce", "#5aa4d6", "#d9622b"),
    "dark": ("#5d6b79", "#8795a3", "#4c9bd1", "#ef8550"),
}
WAYS = {
    "standard loop": None,
    "in backward, `bucket_bytes=0`": 0,
    "in backward, buckets of 4 MiB": 4 << 20,
}


def draw(folder: Path, steps: dict[str, Step]) -> None:
    """Write the figure into a folder, for a light page and for a dark one."""
    for theme in THEMES:
        with panels(2, folder / f"memory-{theme}.svg", theme, "Memory during one step of training") as axes:
            limit = 1.12 * max(step.peak_of_all for step in steps.values())
            for ax, (way, step) in zip(axes, steps.items(), strict=False):
                _stack(ax, step, theme)
                ax.set_title(f"{way.replace('`', '')}: at most {step.peak_of_all:.4g} MiB")
                ax.set_ylim(0, limit)
            axes[0].set_ylabel("MiB")


def _stack(ax: Axes, step: Step, theme: str) -> None:
    ink, _ = COLORS[theme]
    moments = range(step.moments)
    ax.stackplot(moments, *(step.sizes[kind] for kind in KINDS), labels=KINDS, colors=FILLS[theme], linewidth=0)
    ax.axhline(step.peak_of_all, color=ink, linewidth=0.8, linestyle="--")
    for start in [*step.phases.values()][1:]:
        ax.axvline(start, color=ink, linewidth=0.6, linestyle=":")
    ends = [*[*step.phases.values()][1:], step.moments - 1]
    middles = [(start + end) / 2 for start, end in zip(step.phases.values(), ends, strict=True)]
    ax.set_xticks(middles, [phase.replace(", ", ",\n") for phase in step.phases])
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(0, step.moments - 1)


def table(steps: dict[str, Step]) -> str:
    """Return the most that was alive at a time, as a table in Markdown."""
    rows = [["MiB, at most", *KINDS, "all at a time"], ["---"] * (len(KINDS) + 2)]
    rows += [
        [way, *(f"{step.peak(kind):.4g}" for kind in KINDS), f"{step.peak_of_all:.4g}"] for way, step in steps.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def count_all() -> dict[str, Step]:
    """Return what was counted, by the way of training."""
    return {way: count(bucket_bytes) for way, bucket_bytes in WAYS.items()}


if __name__ == "__main__":
    counted = count_all()
    draw(DOCS, counted)
    print(table(counted))
