"""Draws the results, for a light page and for a dark one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.models import WORKLOADS
from bench.panels import COLORS, panels
from bench.variants import VARIANTS, WITHOUT_FUSED, baseline_of, in_words

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from bench.results import Results

# Name of the variant without its suffix, label, and its color on a light and on a dark page.
SHOWN = (
    ("torch", "torch's own", "#b35806", "#f0a35e"),
    ("tutorial", "tutorial's recipe", "#d8a100", "#f6d55c"),
    ("apply", "apply_optimizer_in_backward", "#8073ac", "#b2abd2"),
    ("handed-0", "step_in_backward, bucket 0", "#5aa4d6", "#6fb7e6"),
    ("handed-4M", "step_in_backward, bucket 4 MiB", "#08519c", "#2f8fff"),
)


def plot(results: Results, path: Path, theme: str) -> None:
    """Write the figure as SVG, for a "light" or a "dark" page."""
    optimizers = [*dict.fromkeys(each.optimizer for each in results.found)]
    with panels(len(optimizers) + 1, path, theme, "Benchmark of inbackward") as axes:
        for optimizer, ax in zip(optimizers, axes, strict=False):
            _bars(results, optimizer, ax, theme)
            fused = "" if optimizer in WITHOUT_FUSED else "fused "
            ax.set_title(f"{optimizer}: time of a step, {fused}standard loop = 1")
            ax.axhline(1, color=COLORS[theme][0], linewidth=0.8, linestyle="--", label="standard loop")
        _memory(results, optimizers[0], axes[-1], theme)


def _bars(results: Results, optimizer: str, ax: Axes, theme: str) -> None:
    models, width = [*results.model_bytes], 0.85 / len(SHOWN)
    suffix = "" if optimizer in WITHOUT_FUSED else "-fused"
    for number, (name, label, *colors) in enumerate(SHOWN):
        found = [results.get(model, optimizer, name + suffix) for model in models]
        places = [index + (number - (len(SHOWN) - 1) / 2) * width for index, each in enumerate(found) if each]
        heights = [each.ratio for each in found if each]
        bars = ax.bar(places, heights, width, label=label, color=colors[theme == "dark"])
        ax.bar_label(bars, fmt="%.2f", fontsize=7, rotation=90, padding=2)
    ax.set_xticks(range(len(models)), [WORKLOADS[model].label for model in models])
    ax.margins(y=0.18)


def _memory(results: Results, optimizer: str, ax: Axes, theme: str) -> None:
    model = [*results.model_bytes][-1]
    suffix = "" if optimizer in WITHOUT_FUSED else "-fused"
    shown = ["torch", *(name for name in VARIANTS if name.startswith("handed-") and not name.endswith("fused"))]
    found = [(name, results.get(model, optimizer, name + suffix)) for name in shown]
    loop = results.get(model, optimizer, baseline_of(optimizer))
    names = ["standard\nloop", *(_short(name) for name, each in found if each)]
    sizes = [each.peak_gradients / 2**20 for each in (loop, *(each for _, each in found)) if each]
    colors = {name: (light, dark)[theme == "dark"] for name, _, light, dark in SHOWN}
    ink, _ = COLORS[theme]
    chosen = [ink, *(colors.get(name, colors["handed-4M"]) for name, each in found if each)]
    bars = ax.bar(range(len(sizes)), sizes, 0.6, color=chosen)
    ax.bar_label(bars, fmt="%.3g", fontsize=8, padding=2)
    ax.set_xticks(range(len(sizes)), names)
    ax.margins(y=0.12)
    ax.set_title(f"Peak gradient memory in MiB, {WORKLOADS[model].label}, {optimizer}")


def _short(name: str) -> str:
    return f"bucket\n{in_words(name.removeprefix('handed-'))}" if name.startswith("handed-") else "torch's\nown"
