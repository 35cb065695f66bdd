"""Models with activation checkpointing.

Each class depends on torch alone, as in `inbackward_conformance.catalogue.models`, and names its hazard.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint


class Checkpointed(nn.Module):
    """A block whose activations are computed again in backward."""

    reentrant = False
    dropout = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.block = nn.Sequential(nn.Linear(5, 5), nn.Dropout(self.dropout), nn.Tanh())
        self.head = nn.Linear(5, 3)

    def again(self, features: Tensor) -> Tensor:
        """Call the block through `checkpoint`."""
        output: Tensor = checkpoint(self.block, features, use_reentrant=self.reentrant)
        return output

    def forward(self, features: Tensor) -> Tensor:
        """Return (6, 3)."""
        output: Tensor = self.head(self.again(self.first(features)))
        return output

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (6, 4)."""
        return (torch.randn(6, 4, generator=generator),)


class ReentrantCheckpointed(Checkpointed):
    """Backward that runs another backward inside."""

    reentrant = True


class CheckpointedDropout(Checkpointed):
    """Recomputation that draws random numbers, the same as before."""

    dropout = 0.4


class ReentrantCheckpointedDropout(ReentrantCheckpointed):
    """Recomputation that draws random numbers, the same as before."""

    dropout = 0.4


class CheckpointedTwice(Checkpointed):
    """A block that is called twice through `checkpoint`."""

    def forward(self, features: Tensor) -> Tensor:
        """Return (6, 3)."""
        output: Tensor = self.head(self.again(self.again(self.first(features))))
        return output


class ReentrantCheckpointedTwice(CheckpointedTwice):
    """A block whose gradient comes in two parts, each from a backward of its own."""

    reentrant = True


class CheckpointedAndNot(Checkpointed):
    """A block that is called once through `checkpoint` and once without."""

    def forward(self, features: Tensor) -> Tensor:
        """Return (6, 3)."""
        output: Tensor = self.head(self.block(self.again(self.first(features))))
        return output


class ReentrantCheckpointedAndNot(CheckpointedAndNot):
    """A block that is computed again after a part of its gradient was there."""

    reentrant = True
