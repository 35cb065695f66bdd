"""Models with graphs, parameters or backwards that are hazards for an optimizer in backward.

Each class depends on torch alone, as in `inbackward_conformance.catalogue.models`, and names its hazard.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint


class OneLayer(nn.Module):
    """A graph that no step invalidates: backward needs the batch, and no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Return (6, 3)."""
        output: Tensor = self.layer(features)
        return output

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (6, 4)."""
        return (torch.randn(6, 4, generator=generator),)


class QuantizedBase(OneLayer):
    """A layer beside a frozen parameter of whole numbers, as quantised weights are, which can have no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.arange(12, dtype=torch.uint8).reshape(3, 4), requires_grad=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return (6, 3)."""
        output: Tensor = self.layer(features) + features @ (self.codes.to(features.dtype) / 16).t()
        return output


class Growing(nn.Module):
    """A model that is extended while it is in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def grow(self) -> None:
        """Append a layer."""
        self.layers.append(nn.Linear(4, 4))

    def forward(self, features: Tensor) -> Tensor:
        """Return (6, 4)."""
        output: Tensor = self.layers(features)
        return output

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (6, 4)."""
        return (torch.randn(6, 4, generator=generator),)


class DetachedUse(nn.Module):
    """A weight that is trained in one place, and a constant in an earlier one, whose backward comes later."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.weight = nn.Parameter(torch.randn(5, 5) / 2)

    def constant(self, features: Tensor) -> Tensor:
        """Multiply by the weight's values."""
        return features @ self.weight.detach()

    def forward(self, features: Tensor) -> Tensor:
        """Return (6, 5)."""
        return torch.tanh(self.constant(torch.tanh(self.first(features)))) @ self.weight

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (6, 4)."""
        return (torch.randn(6, 4, generator=generator),)


class UseOfData(DetachedUse):
    """A constant that autograd cannot tell was modified, as `.data` has a version counter of its own."""

    def constant(self, features: Tensor) -> Tensor:
        """Multiply by the weight's values."""
        return features @ self.weight.data


class UseInFunction(DetachedUse):
    """A constant that a custom autograd Function keeps to itself, without `save_for_backward`."""

    class Multiply(torch.autograd.Function):
        """A product with a constant."""

        @staticmethod
        def forward(ctx: Any, features: Tensor, constant: Tensor) -> Tensor:
            """Keep the constant."""
            ctx.constant = constant
            return features @ constant

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
            """Multiply by it."""
            return grad @ ctx.constant.t(), None

    def constant(self, features: Tensor) -> Tensor:
        """Multiply by the weight's values."""
        product: Tensor = self.Multiply.apply(features, self.weight.detach())  # type: ignore[no-untyped-call]
        return product


class CheckpointedConstant(DetachedUse):
    """A constant that backward reads anew: nothing of the graph refers to it meanwhile."""

    reentrant = False

    def constant(self, features: Tensor) -> Tensor:
        """Multiply by the weight's values, through `checkpoint`."""
        output: Tensor = checkpoint(super().constant, features, use_reentrant=self.reentrant)
        return output


class ReentrantCheckpointedConstant(CheckpointedConstant):
    """A constant that backward reads anew, in a backward inside."""

    reentrant = True


class FunctionLinear(nn.Module):
    """Layers in a custom autograd Function that saves its weight, and computes the weight's gradient itself."""

    class Linear(torch.autograd.Function):
        """A matrix product."""

        @staticmethod
        def forward(ctx: Any, features: Tensor, weight: Tensor) -> Tensor:
            """Save both."""
            ctx.save_for_backward(features, weight)
            return features @ weight.t()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
            """Return both gradients."""
            features, weight = ctx.saved_tensors
            return grad @ weight, grad.t() @ features

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(5, 4) / 2)
        self.second = nn.Parameter(torch.randn(5, 5) / 2)

    def layer(self, features: Tensor, weight: Tensor) -> Tensor:
        """Return `features @ weight.T`."""
        output: Tensor = self.Linear.apply(features, weight)  # type: ignore[no-untyped-call]
        return output

    def forward(self, features: Tensor) -> Tensor:
        """Use the second weight twice."""
        return self.layer(
            torch.tanh(self.layer(torch.tanh(self.layer(features, self.first)), self.second)), self.second
        )

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (6, 4)."""
        return (torch.randn(6, 4, generator=generator),)


class RecomputingFunction(FunctionLinear):
    """A custom autograd Function that runs a backward inside its own, to which it gives the gradients back."""

    class Linear(FunctionLinear.Linear):
        """The same product."""

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
            """Return both gradients."""
            features, weight = (saved.detach().requires_grad_() for saved in ctx.saved_tensors)
            with torch.enable_grad():
                output = features @ weight.t()
            return torch.autograd.grad(output, (features, weight), grad)  # type: ignore[return-value]


class GradientByHand(FunctionLinear):
    """A custom autograd Function that adds to its weight's `.grad` itself, as fused kernels do, and returns none."""

    class Linear(torch.autograd.Function):
        """A matrix product."""

        @staticmethod
        def forward(ctx: Any, features: Tensor, weight: Tensor) -> Tensor:
            """Keep the weight itself."""
            ctx.save_for_backward(features)
            ctx.weight = weight
            return features @ weight.t()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
            """Add to `weight.grad`."""
            gradient = grad.t() @ ctx.saved_tensors[0]
            ctx.weight.grad = gradient if ctx.weight.grad is None else ctx.weight.grad + gradient
            return grad @ ctx.weight, None

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Return (6, 3): layers of both kinds."""
        output: Tensor = self.head(super().forward(features))
        return output
