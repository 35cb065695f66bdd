"""Counts the bytes of one step of training, exactly: by weak references to storages."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor


class Storages:
    """Storages that were seen, without keeping them alive.

    Attributes:
        peak: The most bytes of them that were alive when `see` was called.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._seen: dict[int, tuple[StorageWeakRef, int]] = {}

    def see(self, tensors: Iterable[Tensor | None]) -> None:
        """Add the storages of tensors."""
        for tensor in tensors:
            if tensor is not None:
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self._seen[reference.cdata] = (reference, storage.nbytes())
        self._seen = {address: seen for address, seen in self._seen.items() if not seen[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._seen.values()))


class _Allocations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages = Storages()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Weak references keep addresses from being reused: these storages are the arguments' as long as they exist.
        given = [StorageWeakRef(tensor.untyped_storage()) for tensor in _tensors(args, kwargs)]
        addresses = {reference.cdata for reference in given}
        result = func(*args, **(kwargs or {}))
        made = [each for each in _tensors(result) if StorageWeakRef(each.untyped_storage()).cdata not in addresses]
        if made:
            self.storages.see(made)
        return result


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
    """Count in a `with` block around one step. The peaks are there when it is left."""
    peaks, storages = Peaks(), Storages()

    def record(grad: Tensor) -> None:
        storages.see([grad, *(param.grad for param in params)])

    handles = [param.register_hook(record) for param in params]
    try:
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            yield peaks
            peaks.allocation = torch.cuda.max_memory_allocated() - before
        else:
            with _Allocations() as allocations:
                yield peaks
            peaks.allocation = allocations.storages.peak
        peaks.gradients = storages.peak
    finally:
        for handle in handles:
            handle.remove()


def _tensors(*values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
