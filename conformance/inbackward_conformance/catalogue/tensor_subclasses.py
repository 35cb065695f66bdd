"""Models whose parameters are tensor subclasses.

Each class depends on torch alone, as in `inbackward_conformance.catalogue.models`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its name everywhere)
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import return_and_correct_aliasing


class Tagged(Tensor):
    """The least tensor subclass there is."""


class TaggedParameter(nn.Module):
    """Parameters of a tensor subclass without a behaviour of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(self.of(torch.randn(5, 4)))
        self.second = nn.Parameter(self.of(torch.randn(3, 5)))

    @staticmethod
    def of(values: Tensor) -> Tensor:
        """Return `values` as the subclass."""
        return values.as_subclass(Tagged)

    def forward(self, features: Tensor) -> Tensor:
        """Return (6, 3)."""
        return F.linear(torch.tanh(F.linear(features, self.first)), self.second)

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (6, 4)."""
        return (torch.randn(6, 4, generator=generator),)


class Wrapper(Tensor):
    """The least tensor subclass that holds its values in another tensor, as quantized and sharded ones do."""

    inner: Tensor  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: type[Wrapper], inner: Tensor) -> Wrapper:  # noqa: PYI034 (there are no subclasses)
        """Return a tensor without memory of its own."""
        made: Wrapper = Tensor._make_wrapper_subclass(  # noqa: SLF001 (torch's own way)
            cls, inner.shape, inner.stride(), dtype=inner.dtype, device=inner.device
        )
        made.inner = inner
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Name what is inside."""
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], _context: None, _size: Any, _stride: Any) -> Wrapper:
        """Wrap again."""
        return Wrapper(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Compute with what is inside."""
        kwargs = kwargs or {}
        inside = pytree.tree_map_only(Wrapper, lambda wrapper: wrapper.inner, (args, kwargs))
        made = pytree.tree_map_only(Tensor, Wrapper, func(*inside[0], **inside[1]))
        return return_and_correct_aliasing(func, args, kwargs, made)


class WrappedParameter(TaggedParameter):
    """Parameters of a tensor subclass that dispatches."""

    @staticmethod
    def of(values: Tensor) -> Tensor:
        """Return `values` as the subclass."""
        return Wrapper(values)


class NestedParameter(nn.Module):
    """A nested tensor as a parameter: rows of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        rows = [torch.randn(2, 4), torch.randn(3, 4)]
        self.bag = nn.Parameter(torch.nested.nested_tensor(rows, layout=torch.jagged))
        self.head = nn.Linear(4, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Return (5, 2)."""
        output: Tensor = self.head(torch.tanh((self.bag * features.mean()).values()))
        return output

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (6, 4)."""
        return (torch.randn(6, 4, generator=generator),)
