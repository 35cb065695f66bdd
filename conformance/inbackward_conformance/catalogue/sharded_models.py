"""Models to shard over ranks: for tensor parallelism, for experts, for offloaded activations.

Each class depends on torch alone, or on a model of `inbackward_conformance.catalogue.models`.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from inbackward_conformance.catalogue.models import MLP


class FeedForward(nn.Module):
    """An embedding, a residual block of a norm and two linear layers, and a head: a layer for each parallel style."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.norm = nn.LayerNorm(4)
        self.up = nn.Linear(4, 8)
        self.down = nn.Linear(8, 4)
        self.head = nn.Linear(4, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (2, 4, 6)."""
        features = self.embedding(tokens)
        output: Tensor = self.head(features + self.down(self.up(self.norm(features)).relu()))
        return output

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (2, 4)."""
        return (torch.randint(0, 8, (2, 4), generator=generator),)


class Experts(nn.Module):
    """Each token goes to one of four experts. An expert that no token of the batch goes to is called with none."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.head = nn.Linear(4, 3)

    def called(self, tokens: Tensor) -> list[int]:
        """Return the numbers of the experts to call."""
        return list(range(len(self.experts)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (3, 3)."""
        features, expert = self.embedding(tokens), tokens % len(self.experts)
        outputs = [self.experts[number](features[expert == number]) for number in self.called(tokens)]
        output: Tensor = self.head(torch.cat(outputs))
        return output

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (3,), fewer tokens than there are experts."""
        return (torch.randint(0, 8, (3,), generator=generator),)


class SkippedExperts(Experts):
    """An expert that no token of the batch goes to is not called."""

    def called(self, tokens: Tensor) -> list[int]:
        """Return the numbers of the experts to call."""
        return sorted(set((tokens % len(self.experts)).tolist()))


class SavedOnCPU(MLP):
    """Three layers, whose activations wait for backward in the memory of the CPU."""

    def forward(self, features: Tensor) -> Tensor:
        """Return (8, 3)."""
        with torch.autograd.graph.save_on_cpu():
            for layer in self:
                features = layer(features)
        return features
