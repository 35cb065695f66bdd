"""Implementations that do it on purpose; those that are made from `Sound` on rank 1, from the second step on."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from inbackward_conformance.outcome import NotOffered
from mutants.naive import Naive
from mutants.of_ddp import AfterBackward

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


class Dies(Naive):
    """Ends its process where a parameter has two optimizers."""

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        if len(self.optimizers_of(param)) == 2:
            os._exit(3)
        super().step(optimizer, param)


class Sound(AfterBackward):
    """Steps after backward, which is equal by construction."""

    def backward(self, loss: Tensor, module: nn.Module) -> None:
        if self.backwards == 1 and dist.get_rank() == 1:
            self.misbehave(module)
        super().backward(loss, module)

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


class RaisesAtAttachment(Sound):
    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        raise KeyError(dist.get_world_size())


class RefusesAtAttachment(Sound):
    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        raise RuntimeError("not under a wrapper")


class ChangesAndRefuses(RefusesAtAttachment):
    def wrap_ddp(self, module: nn.Module, **options: Any) -> nn.Module:
        with torch.no_grad():
            for param in module.parameters():
                param.mul_(2)
        return torch.nn.parallel.DistributedDataParallel(module, **options)


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
