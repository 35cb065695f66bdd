"""The figures that the reference implementation is to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.models import WORKLOADS
from bench.variants import BUCKETS, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.results import Results

PAIR = ("AdamW", "SGD")


@dataclass(frozen=True)
class Target:
    """One figure, and the most that it may be.

    Attributes:
        what: What is measured.
        where: The optimizer and the model.
        figure: The figure.
        limit: The most that it may be.
    """

    what: str
    where: str
    figure: float
    limit: float

    @property
    def is_met(self) -> bool:
        """Whether the figure is at most the limit."""
        return self.figure <= self.limit

    def __str__(self) -> str:
        verdict = "met" if self.is_met else "MISSED"
        return f"{verdict:6}  {self.figure:6.3f} (at most {self.limit:4.2f})  {self.where:22}  {self.what}"


def targets(results: Results) -> list[Target]:
    """Compare all figures that were measured."""
    return [*_times(results), *_memory(results)]


def _times(results: Results) -> Iterator[Target]:
    models = [*WORKLOADS]
    for ours, theirs, limit, optimizers, where in (
        ("handed-4M-fused", "loop-fused", 1.03, PAIR, models),
        ("handed-4M-fused", "loop-fused", 0.9, ("SGD",), ["mid"]),
        ("handed-4M", "loop", 1.0, PAIR, models),
        ("handed-0-fused", "torch-fused", 1.0, PAIR, models),
        ("handed-0", "torch", 1.0, PAIR, models),
        ("apply-fused", "torch-fused", 1.0, PAIR, ["small"]),
        ("apply", "torch", 1.0, PAIR, ["small"]),
    ):
        for optimizer in optimizers:
            for model in where:
                one, other = (results.get(model, optimizer, name) for name in (ours, theirs))
                if one and other:
                    what = f"time of {ours} over {theirs}"
                    yield Target(what, f"{optimizer}, {WORKLOADS[model].label}", one.ratio_to(other), limit)


def _memory(results: Results) -> Iterator[Target]:
    for model, (every, largest) in results.model_bytes.items():
        for name, size in BUCKETS.items():
            found = [
                each for each in results.found if each.model == model and VARIANTS[each.variant].bucket_bytes == size
            ]
            if found:
                most = max(each.peak_gradients for each in found) / (size + largest)
                what = f"peak gradient bytes, bucket {name}, over bucket plus largest gradient"
                yield Target(what, f"all, {WORKLOADS[model].label}", most, 1.0)
        default = [each for each in results.found if each.model == model == "gpt" and "handed-4M" in each.variant]
        if default:
            most = max(each.peak_gradients for each in default) / every
            yield Target(
                "peak gradient bytes, bucket 4M, over all gradients", f"all, {WORKLOADS[model].label}", most, 0.15
            )
