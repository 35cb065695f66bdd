"""Comparison of tensors, bitwise or to a tolerance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are bitwise equal, NaN and the sign of zero included."""
    if a.dtype != b.dtype or a.shape != b.shape or a.layout != b.layout:
        return False
    if a.is_quantized:
        return same_bits(a.int_repr(), b.int_repr()) and same_bits(a.dequantize(), b.dequantize())
    if a.layout is torch.sparse_coo:
        a, b = a.coalesce(), b.coalesce()
        return same_bits(a.indices(), b.indices()) and same_bits(a.values(), b.values())
    return torch.equal(bits(a.to_dense()), bits(b.to_dense()).to(a.device))


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Return whether two tensors are bitwise equal, or equal to a tolerance, relative to the largest value of `a`."""
    if same_bits(a, b):
        return True
    if not tolerance or a.dtype != b.dtype or a.shape != b.shape or not (a.is_floating_point() or a.is_complex()):
        return False
    expected, actual = _widened(a), _widened(b)
    if expected is None or actual is None:
        return False
    largest = expected.abs().nan_to_num(0, 0).max()  # infinity would let everything pass
    near = _distance(expected, actual) <= tolerance * largest
    return bool((near | (expected.isnan() & actual.isnan())).all())


def bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a strided tensor, as a uint8 tensor of one dimension."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype.itemsize == 1:
        tensor = tensor.view(torch.uint8)  # torch copies no integers of less than 8 bits
    # Not `contiguous()`, which leaves a tensor of one element any stride, and `view` wants 1.
    return tensor.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def copied(tensor: Tensor) -> Tensor:
    """Return a copy of the values, without a graph; of a sharded tensor, of the shard of this rank.

    A tensor on the device `meta` has no values: they count as zeros.
    """
    # The ragged shapes of two nested tensors are never equal, and few functions support them, so take the values.
    values = local(tensor.values() if tensor.is_nested else tensor).detach()
    if values.is_meta:
        return torch.zeros_like(values, device="cpu")
    try:
        return values.clone()
    except NotImplementedError:  # integers of less than 8 bits
        return values.view(torch.uint8).clone().view(values.dtype)


def local(tensor: Any) -> Tensor:
    """Return the shard of this rank of a sharded tensor, and any other tensor as it is."""
    values: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return values


def describe_difference(expected: Tensor, actual: Tensor) -> str:
    """Describe the largest difference between two tensors, or a difference in dtype or shape."""
    if expected.dtype != actual.dtype:
        return f"dtype {actual.dtype}, expected {expected.dtype}"
    if expected.shape != actual.shape:
        return f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    want, got = _widened(expected), _widened(actual)
    if want is None or got is None:
        return "the bytes differ"
    distance = _distance(want, got)
    if distance.isnan().any():
        return "non-finite values differ"
    return f"largest difference {distance.max().item():.3g}"


def _widened(tensor: Tensor) -> Tensor | None:
    """Return the values in double precision, on the CPU; None for a packed dtype, which torch cannot convert."""
    tensor = tensor.detach().cpu()
    tensor = tensor.dequantize() if tensor.is_quantized else tensor.to_dense()
    try:
        return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    except NotImplementedError:
        return None


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().where(a != b, 0)  # infinity minus infinity is NaN
