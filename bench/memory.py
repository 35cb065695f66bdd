"""Counts the bytes of one step of training, exactly: by weak references to storages."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from inbackward_conformance.storages import Allocations, Storages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class PassedGradients:
    """Counts the gradients that backward has passed to parameters, by a tensor hook on each.

    What autograd holds back is not counted: the other gradients that a node has computed at the same time, and the part
    of a gradient that waits for another part. `GradientBytes` of the suite counts that too.

    Attributes:
        peak: The most bytes that were alive at a time.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter]) -> None:
        self.peak = 0
        self._storages = Storages()
        self._params = list(params)
        for param in self._params:
            param.register_hook(self._record)

    def _record(self, grad: torch.Tensor) -> None:
        self._storages.see([grad, *(param.grad for param in self._params)])
        self.peak = max(self.peak, self._storages.live_bytes())


@dataclass
class Peaks:
    """The most bytes that were alive at a time.

    Attributes:
        gradients: In gradients, passed to parameters or accumulated.
        allocation: In everything that was allocated meanwhile.
    """

    gradients: int = 0
    allocation: int = 0


@contextmanager
def counted(params: list[torch.nn.Parameter], device: str) -> Iterator[Peaks]:
    """Count in a `with` block around one step. The peaks are there when it is left; hooks stay on the parameters."""
    peaks, gradients = Peaks(), PassedGradients(params)
    if device != "cpu":
        torch.accelerator.reset_peak_memory_stats()
        before = torch.accelerator.memory_allocated()
        yield peaks
        peaks.allocation = torch.accelerator.max_memory_allocated() - before
    else:
        with Allocations() as allocations:
            yield peaks
        peaks.allocation = allocations.peak
    peaks.gradients = gradients.peak
