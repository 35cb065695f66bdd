"""Implementations that do it on purpose: each sound on its own, and a nuisance on rank 1 from the second step on."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


class Sound:
    """Steps after backward, which is equal by construction."""

    def __init__(self) -> None:
        self._optimizers: list[Optimizer] = []
        self._backwards = 0

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        self._optimizers.append(optimizer_class(params, **optimizer_kwargs))

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return self._optimizers

    def backward(self, loss: Tensor, module: nn.Module) -> None:
        self._backwards += 1
        if self._backwards == 2 and dist.get_rank() == 1:
            self.misbehave(module)
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()
        for optimizer in self._optimizers:
            optimizer.zero_grad()

    def misbehave(self, module: nn.Module) -> None:
        pass


class Loops(Sound):
    def misbehave(self, module: nn.Module) -> None:
        while True:
            pass


class Exits(Sound):
    def misbehave(self, module: nn.Module) -> None:
        print("these are my last words", flush=True)
        os._exit(3)


class StandardLoopExits(Sound):
    """Not the implementation, but the optimizer of the standard loop."""

    def standard_optimizer(self, optimizer_class: Any, params: Any, options: Any) -> Optimizer:
        os._exit(3)


class Segfaults(Sound):
    def misbehave(self, module: nn.Module) -> None:
        ctypes.string_at(0)


class Mismatches(Sound):
    def misbehave(self, module: nn.Module) -> None:
        dist.all_reduce(torch.ones(3))


class Raises(Sound):
    def misbehave(self, module: nn.Module) -> None:
        raise RuntimeError("rank 1 will not")


class RaisesAndKeeps(Raises):
    """Keeps all that it was given alive, connections too."""

    kept: list[Any] = []  # noqa: RUF012

    def wrap_ddp(self, module: nn.Module, **options: Any) -> nn.Module:
        wrapped = torch.nn.parallel.DistributedDataParallel(module, **options)
        self.kept.append(wrapped)
        return wrapped


class OffersNothing(Sound):
    """Says so on all ranks, as soon as the model is wrapped."""

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        raise NotOffered("nothing of it")


class Prints(Sound):
    def misbehave(self, module: nn.Module) -> None:
        for _ in range(200):
            sys.stderr.write("x" * 100_000 + "\n")


class PrintsAndExits(Prints):
    def misbehave(self, module: nn.Module) -> None:
        super().misbehave(module)
        os._exit(4)


class Waits(Sound):
    def misbehave(self, module: nn.Module) -> None:
        dist.barrier()


class Drifts(Sound):
    def backward(self, loss: Tensor, module: nn.Module) -> None:
        super().backward(loss, module)
        with torch.no_grad():
            for param in module.parameters():
                param.mul_(1 + dist.get_rank() * 1e-6)
