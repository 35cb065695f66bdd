"""The model of drawn plans: its layers and their connections are arguments. It depends on torch alone."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

Call = tuple[str, tuple[int, ...]]
"""A layer's name, and the values whose sum is its input: 0 is the batch, n the output of the n-th call."""


class Gain(nn.Module):
    """One factor: a 0-dim parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.randn(()))

    def forward(self, features: Tensor) -> Tensor:
        """Return the same shape."""
        return features * self.factor


class LayerGraph(nn.Module):
    """Layers of width 3, called one after the other, and an offset that is added to what the last call gives.

    A layer is named after its kind, `linear0`, `norm0` or `gain0`. One that several calls name is used several times;
    one that the last call does not depend on has no gradient.
    """

    def __init__(self, calls: tuple[Call, ...] = ()) -> None:
        super().__init__()
        kinds = {"linear": lambda: nn.Linear(3, 3), "norm": lambda: nn.LayerNorm(3), "gain": Gain}
        for name in dict.fromkeys(name for name, _ in calls):
            self.add_module(name, kinds[name.rstrip("0123456789")]())
        self.offset = nn.Parameter(torch.randn(3))
        self.calls = calls

    def forward(self, features: Tensor, skip: tuple[str, ...] = ()) -> Tensor:
        """Return (4, 3); a layer that is skipped gives what it is given."""
        values = [features]
        for name, inputs in self.calls:
            given = torch.stack([values[index] for index in inputs]).sum(0)
            values.append(given if name in skip else torch.tanh(self.get_submodule(name)(given)))
        return values[-1] + self.offset

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (4, 3)."""
        return (torch.randn(4, 3, generator=generator),)


class TiedLayerGraph(LayerGraph):
    """A layer graph with parameters that are views of others' memory.

    Of each pair of names in `tied`, the first parameter has the memory that the second begins with.
    """

    def __init__(self, calls: tuple[Call, ...] = (), tied: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(calls)
        self.tied = tied

    def tie_weights(self) -> None:
        """Have the parameters share their memory."""
        for name, source in self.tied:
            param = self.get_parameter(name)
            param.data = self.get_parameter(source).data.flatten()[: param.numel()].view_as(param)
