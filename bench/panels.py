"""The look of all plots, on a light page and on a dark one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes

COLORS = {"light": ("#24292f", "#d0d7de"), "dark": ("#e6edf3", "#3d444d")}  # text, grid


@contextmanager
def panels(count: int, path: Path, theme: str, title: str) -> Iterator[list[Axes]]:
    """Give panels to draw on, two in a row; when the block is left, the figure is written as SVG.

    The legend of the first is that of all.
    """
    ink, grid = COLORS[theme]
    settings: dict[Any, Any] = {"svg.hashsalt": "inbackward", "font.size": 9, "text.color": ink, "axes.labelcolor": ink}
    settings |= {"axes.edgecolor": grid, "xtick.color": ink, "ytick.color": ink, "axes.titlesize": 10}
    with mpl.rc_context(settings):
        rows = (count + 1) // 2
        figure = Figure(figsize=(10, 0.6 + 3.1 * rows), layout="constrained")
        axes: list[Axes] = [*figure.subplots(rows, 2, squeeze=False).flat]
        yield axes[:count]
        for ax in axes[:count]:
            ax.grid(axis="y", color=grid, linewidth=0.6)
            ax.set_axisbelow(True)
            ax.spines[["top", "right"]].set_visible(False)
            ax.patch.set_alpha(0)
        for ax in axes[count:]:
            ax.remove()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Title": title})
