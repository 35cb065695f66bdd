"""Counts memory exactly: weak references to storages, each known to be alive or not, whoever holds it."""

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


class Storages:
    """Storages that were seen, without keeping any of them alive."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[StorageWeakRef, int]] = {}

    def see(self, tensors: Iterable[torch.Tensor | None]) -> None:
        """Remember the storages of `tensors`."""
        for tensor in tensors:
            if tensor is not None:
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self._seen[reference.cdata] = (reference, storage.nbytes())

    def hold(self, tensor: torch.Tensor) -> bool:
        """Whether the storage of `tensor` was seen: an address does not come back while a weak reference is kept."""
        return StorageWeakRef(tensor.untyped_storage()).cdata in self._seen

    def live(self) -> int:
        """Return how many of them are alive."""
        return len(self.live_sizes())

    def live_bytes(self) -> int:
        """Return how many bytes those have."""
        return sum(self.live_sizes())

    def live_sizes(self) -> list[int]:
        """Return the bytes of each that is alive."""
        self._seen = {address: seen for address, seen in self._seen.items() if not seen[0].expired()}
        return [size for _, size in self._seen.values()]


class Allocations(TorchDispatchMode):
    """As a context: sees every storage that an operator makes, inside backward as well.

    What an operator returns in the storage of an argument, in place or as a view, it has not made.

    Attributes:
        peak: the largest number of bytes that all of them held at one time.
        storages: all that were seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.storages = Storages()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and look at what it returns."""
        given = Storages()
        given.see(_tensors(args, kwargs))
        result = func(*args, **(kwargs or {}))
        made = [tensor for tensor in _tensors(result) if not given.hold(tensor)]
        if made:
            self.storages.see(made)
            self.peak = max(self.peak, self.storages.live_bytes())
        return result


def _tensors(*values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


class GradientBytes:
    """Watches the gradients of `params` during backward, by tensor hooks that see each as it arrives.

    Attributes:
        peak: the largest number of bytes that gradients, arriving and accumulated, held at one time.
        storages: all that were seen.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter]) -> None:
        self.peak = 0
        self.storages = Storages()
        self._params = list(params)
        for param in self._params:
            param.register_hook(self._arrived)

    def _arrived(self, grad: torch.Tensor) -> None:
        self.storages.see([grad, *(param.grad for param in self._params)])
        self.peak = max(self.peak, self.storages.live_bytes())


@contextmanager
def old_objects_set_aside() -> Iterator[None]:
    """Within the context `gc.collect()` and `gc.get_objects()` see the objects alone that were made in it.

    That makes collecting quick, and counting exact.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
