"""Small models, each with the feature of real models that its docstring names.

A model draws its own batches from a generator, so a plan need only name it. Each class depends on torch alone.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its name everywhere)


class MLP(nn.Sequential):
    """Weights and biases, three layers."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (8, 4)."""
        return (torch.randn(8, 4, generator=generator),)


class TwoLayers(nn.Sequential):
    """Two layers of one shape, whose parameters can be shared."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(5, 5), nn.Linear(5, 5))

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (4, 5)."""
        return (torch.randn(4, 5, generator=generator),)


class Stages(nn.Sequential):
    """Stages of a pipeline, `stage0` and so on: a model of which each rank can drop some, and keep the names."""

    def __init__(self, number: int = 2) -> None:
        super().__init__()
        for index in range(number):
            self.add_module(f"stage{index}", nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)))

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (8, 4)."""
        return (torch.randn(8, 4, generator=generator),)


class LayerUsedTwice(nn.Module):
    """One layer that a forward calls twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Return (4, 2)."""
        output: Tensor = self.head(torch.tanh(self.layer(torch.tanh(self.layer(features)))))
        return output

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (4, 5)."""
        return (torch.randn(4, 5, generator=generator),)


class Convolution(nn.Sequential):
    """Convolution with batch norm, whose buffers move as well."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.LazyLinear(2)
        )
        self(torch.zeros(2, 2, 8, 8))

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (4, 2, 8, 8)."""
        return (torch.randn(4, 2, 8, 8, generator=generator),)


class ChannelsLastConvolution(Convolution):
    """Parameters and batches whose strides are not those of a contiguous tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Take images of any memory format."""
        return super().forward(images.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return,no-untyped-call]


class DenseEmbedding(nn.Module):
    """An embedding whose gradient is dense, with rows that a batch does not reach."""

    sparse = False

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4, sparse=self.sparse)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (8, 4)."""
        output: Tensor = self.embedding(tokens)
        return output

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (8,), with repetitions."""
        return (torch.randint(0, 9, (8,), generator=generator),)


class SparseEmbedding(DenseEmbedding):
    """An embedding whose gradient is a sparse tensor."""

    sparse = True


class Recurrent(nn.Module):
    """An LSTM: its weights are used once a time step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, sequence: Tensor) -> Tensor:
        """Return (3, 2)."""
        output: Tensor = self.head(self.lstm(sequence)[0][:, -1])
        return output

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (3, 5, 3): batch, time, features."""
        return (torch.randn(3, 5, 3, generator=generator),)


class TiedTransformer(nn.Module):
    """A transformer block with dropout, whose embedding is its head as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (2, 6, 11)."""
        output: Tensor = self.head(self.block(self.embedding(tokens)))
        return output

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (2, 6)."""
        return (torch.randint(0, 11, (2, 6), generator=generator),)


class Branches(nn.Module):
    """A trunk and branches that a forward may skip."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 5)
        self.left = nn.Linear(5, 3)
        self.right = nn.Linear(5, 3)

    def forward(self, features: Tensor, skip: tuple[str, ...] = ()) -> Tensor:
        """Add up the branches that are not skipped."""
        hidden = torch.tanh(self.trunk(features))
        taken = [branch for name, branch in (("left", self.left), ("right", self.right)) if name not in skip]
        return torch.stack([branch(hidden) for branch in taken]).sum(0)

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (6, 4)."""
        return (torch.randn(6, 4, generator=generator),)


class OddShapes(nn.Module):
    """A 0-dim and a 0-size parameter beside ordinary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.nothing = nn.Parameter(torch.empty(0, 3))

    def forward(self, features: Tensor) -> Tensor:
        """Use all of them."""
        output: Tensor = torch.cat([self.layer(features) * self.gain, self.nothing * 2.0])
        return output

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (5, 4)."""
        return (torch.randn(5, 4, generator=generator),)


class ComplexLinear(nn.Module):
    """Complex parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64))
        self.bias = nn.Parameter(torch.zeros(3, dtype=torch.complex64))

    def forward(self, features: Tensor) -> Tensor:
        """Return (5, 3), complex."""
        return F.linear(features.to(torch.complex64), self.weight, self.bias)

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (5, 4)."""
        return (torch.randn(5, 4, generator=generator),)


class WeightNormed(nn.Module):
    """A parametrized layer: its weight is computed from two parameters in each forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
        self.head = nn.Linear(3, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Return (5, 2)."""
        output: Tensor = self.head(torch.tanh(self.layer(features)))
        return output

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (5, 4)."""
        return (torch.randn(5, 4, generator=generator),)
