"""Mutants of DistributedDataParallel: what goes wrong between a hook and an all-reduce."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from mutants.naive import Naive
from mutants.registry import fails

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


@fails("ddp/early_step")
class AfterBackward:
    """What the others are made from: an ordinary optimizer for each call, equal, but stepped when all is over."""

    def __init__(self) -> None:
        self.attached: list[Optimizer] = []
        self.backwards = 0

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        self.attached.append(optimizer_class(params, **optimizer_kwargs))

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return list(self.attached)

    def backward(self, loss: Tensor, module: nn.Module) -> None:
        loss.backward()
        self.backwards += 1
        self.step(module)
        for optimizer in self.attached:
            optimizer.zero_grad()

    def step(self, module: nn.Module) -> None:
        for optimizer in self.attached:
            optimizer.step()


@fails("ddp/equality", "after-2")
class StepsBeforeTheAllReduce(Naive):
    """Its hooks are on parameters, whose gradients are still those of one rank."""


@fails("ddp/many_buckets")
class KeepsTheFirstBuckets(AfterBackward):
    """Looks gradients up once, and goes on with that memory when buckets are rebuilt."""

    def step(self, module: nn.Module) -> None:
        if self.backwards == 1:
            self.grads = {param: param.grad for param in module.parameters()}
        for param, grad in self.grads.items():
            param.grad = grad
        super().step(module)


@fails("ddp/static_graph")
class MissesTheFirstBackward(AfterBackward):
    """Waits for bucket hooks, which a static graph calls from the second backward on."""

    def step(self, module: nn.Module) -> None:
        if self.backwards > 1:
            super().step(module)


@fails("ddp/unused_parameters", "all-ranks-no-views")
class TakesNoGradientForZeros(AfterBackward):
    """Steps whatever is in the bucket, zeros too: weight decay moves what nobody has used."""

    def step(self, module: nn.Module) -> None:
        for param in module.parameters():
            if param.grad is None:
                param.grad = torch.zeros_like(param)
        super().step(module)


@fails("ddp/no_sync")
class ForgetsWhatHasAccumulated(AfterBackward):
    """Starts each backward with a clean slate."""

    def backward(self, loss: Tensor, module: nn.Module) -> None:
        for optimizer in self.attached:
            optimizer.zero_grad()
        super().backward(loss, module)


@fails("ddp/shared_parameter")
class StepsForEachName(AfterBackward):
    """Goes through modules instead of parameters."""

    def step(self, module: nn.Module) -> None:
        super().step(module)
        names = Counter(param for _, param in module.named_parameters(remove_duplicate=False))
        for param in names:
            if names[param] == 1:
                param.grad = None
        super().step(module)


@fails("ddp/two_optimizers")
class LastComeFirstServed(AfterBackward):
    """Steps in the reverse order of attachment."""

    def step(self, module: nn.Module) -> None:
        for optimizer in reversed(self.attached):
            optimizer.step()


@fails("ddp/join", "active-ranks")
class DividesByAllRanks(AfterBackward):
    """Knows one divisor."""

    def wrap_ddp(self, module: nn.Module, **options: Any) -> nn.Module:
        return _OneDivisor(module, **options)


class _OneDivisor(DistributedDataParallel):
    def join(self, **options: Any) -> AbstractContextManager[None]:  # type: ignore[override]
        joining: AbstractContextManager[None] = super().join(**options | {"divide_by_initial_world_size": True})
        return joining
