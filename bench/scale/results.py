"""What was counted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MAP = "map"  # an all-reduce that says which parameters were used


@dataclass(frozen=True)
class Point:
    """A model, how many ranks train it, and how.

    Attributes:
        arrangement: How the ranks share the work.
        way: When the optimizer steps.
        layers: How many layers the model has, each of one parameter.
        width: Of a layer, whose parameter has its square elements.
        ranks: How many there are.
        bucket_bytes: Of `step_in_backward`, and of DDP.
        layers_a_unit: How many layers FSDP2 shards together.
    """

    arrangement: str
    way: str
    layers: int
    width: int
    ranks: int
    bucket_bytes: int
    layers_a_unit: int

    @property
    def model_bytes(self) -> int:
        """The bytes of all parameters, before they are sharded."""
        return 4 * self.layers * self.width**2


@dataclass
class Count:
    """What rank 0 does in one step of training.

    Attributes:
        point: Where it was counted.
        collectives: How often it calls each collective.
        sent: How many bytes it gives to each collective.
        parameters: Bytes of its parameters.
        state: Bytes of its optimizers' state.
        gradients: The most bytes of gradients at a time.
        steps: For each call of `Optimizer.step`, how many parameters it steps.
    """

    point: Point
    collectives: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    parameters: int = 0
    state: int = 0
    gradients: int = 0
    steps: list[int] = field(default_factory=list)


@dataclass
class Counts:
    """All counts of a run.

    Attributes:
        versions: Of what was counted.
        axes: For each axis, what was counted along it.
    """

    versions: dict[str, str]
    axes: dict[str, list[Count]] = field(default_factory=dict)

    def along(self, axis: str, arrangement: str, way: str) -> list[Count]:
        """Give what was counted along an axis, in its order."""
        wanted = (arrangement, way)
        return [each for each in self.axes[axis] if (each.point.arrangement, each.point.way) == wanted]

    def arrangements(self, axis: str) -> list[str]:
        """Name the arrangements in which was counted along an axis."""
        return [*dict.fromkeys(each.point.arrangement for each in self.axes[axis])]

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
