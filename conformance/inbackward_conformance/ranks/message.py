"""What ranks, and who sends them jobs, tell each other: bytes, so that no tensor keeps a file descriptor open."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor

from inbackward_conformance.tensors import bits


def pack(message: object) -> bytes:
    """Return a message as bytes."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(message)
    return buffer.getvalue()


def unpack(data: bytes) -> Any:
    """Return the message that `pack` made these bytes of; a plain tensor arrives on the CPU."""
    return pickle.loads(data)  # noqa: S301 (from a process of our own)


class _Pickler(pickle.Pickler):
    """Writes a plain tensor as its bytes: `torch.save` takes ten times as long for the many small ones of a trace."""

    def reducer_override(self, given: object) -> Any:
        if type(given) is not Tensor or given.layout is not torch.strided or given.requires_grad:
            return NotImplemented
        return _tensor, (bits(given).cpu().numpy().tobytes(), given.dtype, tuple(given.shape))


def _tensor(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not data:  # which `frombuffer` does not take
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
