"""Counts the gradients of a module that are alive, sharded ones and those on their way included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inbackward_conformance.storages import Storages
from inbackward_conformance.tensors import local

if TYPE_CHECKING:
    from torch import Tensor, nn


class Gradients:
    """Counts the storages of all gradients that were ever seen, as long as they live.

    Backward shows each gradient by a hook on the parameter that the forward uses. Under FSDP2 that is the unsharded
    parameter, which a module has only during its forward.

    Attributes:
        peak: The most bytes that were alive at a time; to be set to 0 where counting begins.
    """

    def __init__(self, module: nn.Module) -> None:
        self.peak = 0
        self._storages = Storages()
        self._watched: dict[int, nn.Parameter] = {}
        for each in module.modules():
            each.register_forward_pre_hook(self._watch)

    def see(self, *tensors: Tensor) -> None:
        """Count some gradients, besides all others that are alive."""
        self._storages.see(map(local, tensors))
        self.peak = max(self.peak, self._storages.live_bytes())

    def _watch(self, module: nn.Module, _: Any) -> None:
        for param in module.parameters(recurse=False):
            if id(param) not in self._watched:
                self._watched[id(param)] = param
                param.register_hook(self.see)
