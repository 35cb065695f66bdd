"""Models with parameters that are views of one memory.

Each class depends on torch alone, as in `inbackward_conformance.catalogue.models`, and names what its parameters share.
They share it once `tie_weights` has been called, which a conversion of the model would undo.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint


class Chunks(nn.Module):
    """Weights that are chunks of one tensor, as query, key and value are in a file: one version counter for all.

    `reentrant` is for activation checkpointing of each layer; None for none.
    """

    order = ("first", "second", "third")

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.entry = nn.Linear(4, 5)
        self.first = nn.Parameter(torch.randn(5, 5) / 2)
        self.second = nn.Parameter(torch.randn(5, 5) / 2)
        self.third = nn.Parameter(torch.randn(5, 5) / 2)
        self.reentrant = reentrant

    def tie_weights(self) -> None:
        """Have the weights share their memory."""
        whole = torch.cat([self.first.detach(), self.second.detach(), self.third.detach()])
        self.first, self.second, self.third = map(nn.Parameter, whole.chunk(3))

    def layer(self, features: Tensor, name: str) -> Tensor:
        """Multiply by a weight."""
        return torch.tanh(features @ getattr(self, name))

    def forward(self, features: Tensor) -> Tensor:
        """Return (6, 5)."""
        hidden: Tensor = self.entry(features)
        for name in self.order:
            if self.reentrant is None:
                hidden = self.layer(hidden, name)
            else:
                hidden = checkpoint(self.layer, hidden, name, use_reentrant=self.reentrant)
        return hidden

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (6, 4)."""
        return (torch.randn(6, 4, generator=generator),)


class FlatBuffer(Chunks):
    """Weights whose data are views of a flat buffer, one behind the other."""

    distance = 25

    def tie_weights(self) -> None:
        """Have the weights share their memory."""
        flat = torch.cat([self.first.detach().flatten(), self.second.detach().flatten(), self.third.detach().flatten()])
        for number, weight in enumerate((self.first, self.second, self.third)):
            start = number * self.distance
            weight.data = flat[start : start + 25].view(5, 5)


class Overlapping(FlatBuffer):
    """Weights that overlap in a part of their memory."""

    distance = 10


class SameData(Chunks):
    """Two weights of the same data, each with a version counter of its own."""

    def tie_weights(self) -> None:
        """Have the weights share their memory."""
        self.third.data = self.second.data


class Transposed(Chunks):
    """A weight that is the transpose of another one, as in an autoencoder."""

    def tie_weights(self) -> None:
        """Have the weights share their memory."""
        self.third.data = self.second.data.t()


class RealPart(Chunks):
    """A weight that is the real part of a complex one."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__(reentrant)
        self.second = nn.Parameter(torch.randn(5, 5, dtype=torch.complex64) / 2)

    def tie_weights(self) -> None:
        """Have the weights share their memory."""
        self.third.data = torch.view_as_real(self.second.data)[..., 0]

    def layer(self, features: Tensor, name: str) -> Tensor:
        """Multiply by a weight, or by both parts of a complex one."""
        if name == "second":
            return torch.tanh(features @ self.second.real - features @ self.second.imag)
        return super().layer(features, name)


class BufferOfParameter(Chunks):
    """A weight that is a constant as well: a buffer has its memory, and is used first."""

    order = ("first", "constant", "third")

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__(reentrant)
        self.register_buffer("constant", torch.zeros(5, 5))

    def tie_weights(self) -> None:
        """Have the buffer share the memory of a weight."""
        self.constant = self.third.data
