"""Messages between ranks, as bytes, so that no tensor holds a file descriptor."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor

from inbackward_conformance.tensors import bits


def pack(message: object) -> bytes:
    """Serialize a message."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(message)
    return buffer.getvalue()


def unpack(data: bytes) -> Any:
    """Deserialize a message; a plain tensor is on the CPU."""
    return pickle.loads(data)  # noqa: S301 (from our own process)


class _Pickler(pickle.Pickler):
    """Serializes plain tensors as bytes, ten times faster than `torch.save` for the many small ones of a trace."""

    def reducer_override(self, value: object) -> Any:
        if type(value) is not Tensor or value.layout is not torch.strided or value.requires_grad:
            return NotImplemented
        return _rebuild_tensor, (bits(value).cpu().numpy().tobytes(), value.dtype, tuple(value.shape))


def _rebuild_tensor(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not data:  # `frombuffer` rejects an empty buffer
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
