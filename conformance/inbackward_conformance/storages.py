"""Counts memory exactly, through weak references to storages."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from itertools import accumulate, chain
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


class GradientBytes(TorchDispatchMode):
    """A context manager that counts the gradients of `params`, which a tensor hook on each parameter tells.

    A gradient counts from its allocation, not from the hook that sees it first: compiled code returns the gradients of
    all its parameters at once, before one of them is accumulated.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._params = list(params)
        self._now = 0
        self._living: dict[int, _Lifetime] = {}
        self._gradients: set[_Lifetime] = set()
        for param in self._params:
            param.register_hook(self._see_gradients)

    @property
    def peak(self) -> int:
        """The largest number of bytes in gradients, passed to hooks or accumulated, at any time."""
        self._see_gradients()
        changes = [(lifetime.born, lifetime.nbytes) for lifetime in self._gradients]
        changes += [(lifetime.died, -lifetime.nbytes) for lifetime in self._gradients if lifetime.died]
        return max(accumulate((nbytes for _, nbytes in sorted(changes)), initial=0))

    @property
    def live_bytes(self) -> int:
        """The number of bytes in gradients that are alive."""
        self._see_gradients()
        return sum(lifetime.nbytes for lifetime in self._gradients if not lifetime.died)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, and record the storages of its results."""
        result = func(*args, **(kwargs or {}))
        self._record(_tensors(result))
        return result

    def _see_gradients(self, grad: torch.Tensor | None = None) -> None:
        seen = [each for each in (grad, *(param.grad for param in self._params)) if each is not None]
        self._gradients.update(self._record(seen))

    def _record(self, tensors: Iterable[torch.Tensor]) -> list[_Lifetime]:
        """Return the lifetimes of the storages of some tensors, after those of all others are brought up to date."""
        self._now += 1
        for address, lifetime in list(self._living.items()):
            if lifetime.storage.expired():
                lifetime.died = self._now
                del self._living[address]
        found = []
        for storage in chain.from_iterable(map(storages_of, tensors)):
            reference = StorageWeakRef(storage)
            new = _Lifetime(reference, storage.nbytes(), self._now)
            found.append(self._living.setdefault(reference.cdata, new))
        return found


class _Lifetime:
    """When a storage was allocated, and freed; 0 if it is alive. The weak reference keeps its address from others."""

    def __init__(self, storage: StorageWeakRef, nbytes: int, born: int) -> None:
        self.storage = storage
        self.nbytes = nbytes
        self.born = born
        self.died = 0


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
