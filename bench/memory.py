"""Counts the bytes of one step of training, exactly: by weak references to storages."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from inbackward_conformance.storages import Allocations, GradientBytes

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Peaks:
    """The most bytes that were alive at a time.

    Attributes:
        gradients: In gradients, passed to parameters or accumulated, from their allocation on.
        allocation: In everything that was allocated meanwhile.
    """

    gradients: int = 0
    allocation: int = 0


@contextmanager
def counted(params: list[torch.nn.Parameter], device: str) -> Iterator[Peaks]:
    """Count in a `with` block around one step. The peaks are there when it is left; hooks stay on the parameters."""
    peaks, gradients = Peaks(), GradientBytes(params)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with gradients:
            yield peaks
        peaks.allocation = torch.cuda.max_memory_allocated() - before
    else:
        with gradients, Allocations() as allocations:
            yield peaks
        peaks.allocation = allocations.peak
    peaks.gradients = gradients.peak
