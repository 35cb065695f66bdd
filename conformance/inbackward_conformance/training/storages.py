"""Counts memory exactly, through weak references to storages."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def storages_of(tensor: torch.Tensor) -> list[torch.UntypedStorage]:
    """Return the storages of a tensor; a sparse one has one for its indices and one for its values."""
    if tensor.layout is torch.sparse_coo:
        # `indices()` and `values()` refuse a gradient that is not coalesced.
        return [tensor._indices().untyped_storage(), tensor._values().untyped_storage()]  # noqa: SLF001
    return [tensor.untyped_storage()]


class Storages:
    """Weak references to storages."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[StorageWeakRef, int]] = {}

    def see(self, tensors: Iterable[torch.Tensor | None]) -> None:
        """Add the storages of `tensors`."""
        for tensor in tensors:
            for storage in [] if tensor is None else storages_of(tensor):
                reference = StorageWeakRef(storage)
                self._seen[reference.cdata] = (reference, storage.nbytes())

    def hold(self, tensor: torch.Tensor) -> bool:
        """Return whether the storage of `tensor` was added; weak references keep addresses from being reused."""
        return all(StorageWeakRef(storage).cdata in self._seen for storage in storages_of(tensor))

    def live(self) -> int:
        """Return the number of storages that are alive."""
        return len(self.live_sizes())

    def live_bytes(self) -> int:
        """Return the number of bytes in storages that are alive."""
        return sum(self.live_sizes())

    def live_sizes(self) -> list[int]:
        """Return the size in bytes of each storage that is alive."""
        self._seen = {address: seen for address, seen in self._seen.items() if not seen[0].expired()}
        return [size for _, size in self._seen.values()]


class Allocations(TorchDispatchMode):
    """A context manager that records every storage that an operator allocates, inside backward as well.

    A result in the storage of an argument, in place or as a view, is not an allocation.

    Attributes:
        peak: the largest number of bytes in these storages at any time.
        storages: the recorded storages.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.storages = Storages()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, and record the storages of its results."""
        inputs = Storages()
        inputs.see(_tensors(args, kwargs))
        result = func(*args, **(kwargs or {}))
        allocated = [tensor for tensor in _tensors(result) if not inputs.hold(tensor)]
        if allocated:
            self.storages.see(allocated)
            self.peak = max(self.peak, self.storages.live_bytes())
        return result


def _tensors(*values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


class GradientBytes:
    """Records the gradients of `params` during backward, with a tensor hook on each parameter.

    Attributes:
        peak: the largest number of bytes in gradients, passed to hooks or accumulated, at any time.
        storages: the recorded storages.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter]) -> None:
        self.peak = 0
        self.storages = Storages()
        self._params = list(params)
        for param in self._params:
            param.register_hook(self._record)

    def _record(self, grad: torch.Tensor) -> None:
        self.storages.see([grad, *(param.grad for param in self._params)])
        self.peak = max(self.peak, self.storages.live_bytes())


@contextmanager
def gc_new_objects_only() -> Iterator[None]:
    """Restrict `gc.collect()` and `gc.get_objects()` within the context to objects that are made in it.

    This makes collecting fast and counting exact.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
