"""Counts at all points of all axes."""

from __future__ import annotations

import copy
import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import inbackward
from bench.models import Chain
from bench.scale.arrangements import WAYS
from bench.scale.count import count
from bench.scale.results import Counts, Point
from inbackward_conformance.storages import gc_new_objects_only

if TYPE_CHECKING:
    from bench.scale.results import Count

RANKS = 8  # where their number does not grow


@dataclass(frozen=True)
class Setting:
    """How far to go.

    Attributes:
        depths: Numbers of layers of the first width, along the axis where they grow, the smallest first.
        layers: Their number elsewhere.
        widths: Of layers, the largest first; smaller ones cut the same bytes into more parameters.
        ranks: Numbers of ranks, the smallest first.
        bucket_bytes: Of `step_in_backward`, and of DDP.
    """

    depths: list[int]
    layers: int
    widths: list[int]
    ranks: list[int]
    bucket_bytes: int

    def axes(self) -> dict[str, list[Point]]:
        """Give the points of each axis."""
        width, few = self.widths[0], ("alone", "ddp", "fsdp")
        cut = [(self.layers * width**2 // each**2, each, RANKS) for each in self.widths]
        return {
            "depth": self._points(few, [(depth, width, RANKS) for depth in self.depths]),
            "parameters": self._points(few, cut),
            "ranks": self._points(("ddp", "ddp-unused", "fsdp"), [(self.layers, width, each) for each in self.ranks]),
        }

    def _points(self, arrangements: tuple[str, ...], sizes: list[tuple[int, int, int]]) -> list[Point]:
        return [
            Point(
                arrangement,
                way,
                layers,
                width,
                1 if arrangement == "alone" else ranks,
                self.bucket_bytes,
                self.widths[0] ** 2 // width**2,
            )
            for arrangement in arrangements
            for layers, width, ranks in sizes
            for way in WAYS
        ]


def measure(setting: Setting) -> Counts:
    """Count along all axes. A point of several axes is counted once."""
    torch.set_num_threads(1)  # the operators are too small for more
    counts = Counts({"torch": str(torch.__version__), "inbackward": inbackward.__version__})
    models: dict[tuple[int, int], Chain] = {}
    found: dict[Point, Count] = {}
    with gc_new_objects_only():
        for axis, points in setting.axes().items():
            for point in points:
                if point not in found:
                    size = point.layers, point.width
                    if size not in models:
                        models[size] = Chain(*size, bias=False)
                    found[point] = count(point, copy.deepcopy(models[size]))
                    gc.collect()  # a DistributedDataParallel is in a cycle with its buckets
            counts.axes[axis] = [found[point] for point in points]
    return counts
