"""Prints the counts, and writes them as a page with its plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.scale.arrangements import ARRANGEMENTS
from bench.scale.page import page
from bench.scale.table import rows_of
from bench.scale.targets import targets

if TYPE_CHECKING:
    from pathlib import Path

    from bench.scale.results import Counts


def print_tables(counts: Counts) -> None:
    """Print a table for each axis and arrangement, and the targets."""
    for axis in counts.axes:
        for arrangement in counts.arrangements(axis):
            print(f"{axis}, {ARRANGEMENTS[arrangement].label}")
            rows = rows_of(axis, [each for each in counts.axes[axis] if each.point.arrangement == arrangement])
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for row in rows:
                print("  " + "  ".join(map(str.ljust, row, widths)).rstrip())
            print()
    print("targets")
    for target in targets(counts):
        print(f"  {target}")


def write_docs(counts: Counts, folder: Path) -> None:
    """Write the page, and its plot for light pages and for dark ones."""
    from bench.scale.plot import plot  # noqa: PLC0415 -- the others need no matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scale.md").write_text(page(counts), encoding="utf-8")
    for theme in ("light", "dark"):
        plot(counts, folder / f"scale-{theme}.svg", theme)
