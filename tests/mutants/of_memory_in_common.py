"""Caught by parameters that are views of one memory, and by drawn plans of them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mutants.naive import Naive
from mutants.registry import base, fails

if TYPE_CHECKING:
    from torch.optim import Optimizer


@base
class MemoryAsked(Naive):
    """A parameter whose memory anything else uses is stepped when backward is over, in order of attachment."""

    def __init__(self) -> None:
        self.attached: list[weakref.ref[Optimizer]] = []
        self.put_off: list[Tensor] = []

    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook)
        self.attached.append(weakref.ref(optimizer))

    def backward(self, loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
        loss.backward(**kwargs)
        waiting, self.put_off = self.put_off, []
        for optimizer, param in self.in_order(waiting):
            self.step(optimizer, param)
        for param in waiting:
            param.grad = None

    def in_order(self, waiting: list[Tensor]) -> list[tuple[Optimizer, Tensor]]:
        held = [(each, param_of(each)) for reference in self.attached if (each := reference()) is not None]
        return [(optimizer, param) for optimizer, param in held if any(param is each for each in waiting)]

    def on_gradient(self, param: Tensor) -> None:
        if self.users(param) > users_of_storage(torch.empty(0)):
            self.put_off.append(param)
        else:
            super().on_gradient(param)

    def users(self, param: Tensor) -> int:
        return users_of_storage(param)


@fails("models/shared_storage", "SGD-SameData")
@fails("hazards/checkpoint_of_shared_storage", "SameData-nonreentrant")
@fails("properties/shared_storage")
class OtherParametersDiscounted(MemoryAsked):
    """What the running graph holds counts, and not that another parameter has the memory too."""

    def users(self, param: Tensor) -> int:
        address = param.untyped_storage().data_ptr()
        params = {id(param_of(each)): param_of(each) for reference in self.attached if (each := reference())}.values()
        others = [each for each in params if each is not param]
        return super().users(param) - sum(each.untyped_storage().data_ptr() == address for each in others)


@fails("models/shared_storage", "SGD-Overlapping")
@fails("models/shared_storage_of_two_optimizers")
class SteppedInOrderOfGradients(MemoryAsked):
    """Where parameters overlap, the order of their steps makes a difference."""

    def in_order(self, waiting: list[Tensor]) -> list[tuple[Optimizer, Tensor]]:
        return [(optimizer, param) for param in waiting for optimizer in self.optimizers_of(param)]


def param_of(optimizer: Optimizer) -> Tensor:
    param: Tensor = optimizer.param_groups[0]["params"][0]
    return param


def users_of_storage(tensor: Tensor) -> int:
    return int(torch._C._storage_Use_Count(tensor.untyped_storage()._cdata))
