"""What was measured, and what of it is derived."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Result:
    """One variant with one optimizer on one model.

    Attributes:
        model: Which model.
        optimizer: Which optimizer.
        variant: Which variant.
        seconds: The time of each step, a list for each round.
        baseline_seconds: The same of the baseline that it took turns with.
        peak_gradients: The most bytes of gradients at a time.
        peak_allocation: The most bytes that a step had allocated at a time.
    """

    model: str
    optimizer: str
    variant: str
    seconds: list[list[float]] = field(default_factory=list)
    baseline_seconds: list[list[float]] = field(default_factory=list)
    peak_gradients: int = 0
    peak_allocation: int = 0

    @property
    def medians(self) -> list[float]:
        """The median time of a step, by round."""
        return [statistics.median(times) for times in self.seconds]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The quartiles of the time of a step, of all rounds."""
        times = [each for times in self.seconds for each in times]
        first, second, third = statistics.quantiles(times, method="inclusive") if len(times) > 1 else times * 3
        return first, second, third

    @property
    def ratio(self) -> float:
        """The time of a step over the baseline's: of the medians, the median of all rounds."""
        return _median_ratio(self.medians, [statistics.median(times) for times in self.baseline_seconds])

    def ratio_to(self, other: Result) -> float:
        """The same over another variant's, which it took turns with."""
        return _median_ratio(self.medians, other.medians)


@dataclass
class Results:
    """All results of a run.

    Attributes:
        machine: What they were measured on, in words.
        model_bytes: For each model, the bytes of all gradients and of the largest.
        found: The results.
    """

    machine: dict[str, str]
    model_bytes: dict[str, tuple[int, int]] = field(default_factory=dict)
    found: list[Result] = field(default_factory=list)

    def get(self, model: str, optimizer: str, variant: str) -> Result | None:
        """Find a result; None if it was not measured."""
        wanted = (model, optimizer, variant)
        return next((each for each in self.found if (each.model, each.optimizer, each.variant) == wanted), None)

    def add(self, other: Results) -> None:
        """Add what another run has measured."""
        self.model_bytes |= other.model_bytes
        self.found += other.found

    def write(self, path: Path) -> None:
        """Write everything as JSON, with the derived figures."""
        data = asdict(self)
        for result, plain in zip(self.found, data["found"], strict=True):
            plain |= {"ratio": result.ratio, "quartiles": result.quartiles}
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what `write` has written."""
        data = json.loads(path.read_text(encoding="utf-8"))
        found = [Result(**{name: each[name] for name in Result.__dataclass_fields__}) for each in data["found"]]
        sizes = {name: (every, largest) for name, (every, largest) in data["model_bytes"].items()}
        return cls(data["machine"], sizes, found)


def _median_ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
