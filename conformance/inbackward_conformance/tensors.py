"""Comparison of tensors, bitwise or to a tolerance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are bitwise equal, NaN and the sign of zero included."""
    if a.dtype != b.dtype or a.shape != b.shape or a.layout != b.layout:
        return False
    if a.layout != torch.strided:
        a, b = a.coalesce(), b.coalesce()
        return same_bits(a.indices(), b.indices()) and same_bits(a.values(), b.values())
    return torch.equal(bits(a), bits(b))


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Return whether two tensors are bitwise equal, or equal to a relative tolerance."""
    if same_bits(a, b):
        return True
    if not tolerance or a.dtype != b.dtype or a.shape != b.shape or not a.is_floating_point():
        return False
    a, b = a.to_dense().double(), b.to_dense().double()
    return bool((a - b).abs().max() <= tolerance * a.abs().max())


def bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a strided tensor, as a uint8 tensor of one dimension."""
    return tensor.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8)


def describe_difference(expected: Tensor, actual: Tensor) -> str:
    """Describe the largest difference between two tensors, or a difference in dtype or shape."""
    if expected.dtype != actual.dtype:
        return f"dtype {actual.dtype}, expected {expected.dtype}"
    if expected.shape != actual.shape:
        return f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    wide = torch.complex128 if expected.is_complex() else torch.float64
    distance = (actual.to_dense().to(wide) - expected.to_dense().to(wide)).abs()
    if distance.isnan().any():
        return "non-finite values differ"
    return f"largest difference {distance.max().item():.3g}"


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value of an optimizer state, which may be nested."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
