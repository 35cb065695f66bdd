"""Mutants of pipelines: what goes wrong between the micro-batches of a schedule."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.distributed.tensor import DTensor

from mutants.naive import Naive
from mutants.registry import base, fails

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from torch import Tensor, nn
    from torch.optim import Optimizer


@fails("pipeline/tied_stages")
@fails("pipeline/zero_bubble")
@base
class AtTheLastMicroBatch(Naive):
    """What the others are made from: it counts the gradients of a parameter, scales the last sum as the schedule would.

    It knows no parameter whose gradient is not over with that, or that a zero-bubble schedule sets by itself.
    """

    def __init__(self) -> None:
        self.gradients: Counter[Tensor] = Counter()
        self.accumulates = False

    def on_gradient(self, param: Tensor) -> None:
        if self.accumulates:
            return
        number = self.micro_batches()
        self.gradients[param] += 1
        if self.gradients[param] == number or isinstance(param, DTensor):  # FSDP2 has all summed up
            self.gradients[param] = 0
            if self.scales():
                assert param.grad is not None
                param.grad.div_(number)
            super().on_gradient(param)

    def micro_batches(self) -> int:
        return getattr(_running_schedule(), "_n_microbatches", 1)

    def scales(self) -> bool:
        return getattr(_running_schedule(), "scale_grads", False)

    @contextmanager
    def accumulate(self, module: nn.Module) -> Iterator[None]:
        self.accumulates = True
        yield
        self.accumulates = False


@fails("pipeline/schedules")
class StepsEachMicroBatch(AtTheLastMicroBatch):
    def micro_batches(self) -> int:
        return 1


@fails("pipeline/schedules")
class LeavesTheSumUnscaled(AtTheLastMicroBatch):
    def scales(self) -> bool:
        return False


@fails("pipeline/schedules", "sum-of-losses")
class TakesEachLossForAMean(AtTheLastMicroBatch):
    def scales(self) -> bool:
        return True


@fails("pipeline/accumulated")
class AccumulatesTheLastAlone(AtTheLastMicroBatch):
    """Frees what has accumulated before."""

    def on_gradient(self, param: Tensor) -> None:
        if not self.accumulates:
            super().on_gradient(param)
            return
        self.gradients[param] += 1
        if self.gradients[param] % self.micro_batches():
            param.grad = None


@fails("pipeline/attached_to_stages", "one-of-two")
class WaitsForAllStages(AtTheLastMicroBatch):
    """Has a step wait for the gradients of all stages that the schedule has here, attached to or not."""

    def on_gradient(self, param: Tensor) -> None:
        stages = getattr(_running_schedule(), "_stages", [])
        params = [each for stage in stages for each in stage.submod.parameters()]
        if any(each is not param and not self.optimizers_of(each) for each in params):
            return
        super().on_gradient(param)


class InParts(AtTheLastMicroBatch):
    """Knows the parts of a model, each attached by a call of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.place: dict[Tensor, int] = {}
        self.last_part: list[Tensor] = []

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        self.last_part = list(params)
        self.place |= {param: place for place, param in enumerate(self.last_part)}
        super().apply(optimizer_class, self.last_part, optimizer_kwargs, register_hook)


@fails("pipeline/attached_to_stages", "each")
class StepsTheLastPart(InParts):
    """Has hooks look up optimizers in the variable of a loop over parts, which is the last part's for all of them."""

    def step_all(self, param: Tensor) -> None:
        super().step_all(self.last_part[self.place[param]])


@fails("pipeline/accumulated_in_stages", "each")
@fails("resharding/stages")
class ListsTheLastPart(InParts):
    """Shows the optimizers of one of several stages, and so saves no others' states."""

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return [optimizer for param in self.last_part for optimizer in self.optimizers_of(param)]


@fails("pipeline/tied_stages_accumulated")
class StepsWhatItHasAccumulated(AtTheLastMicroBatch):
    """Keeps a copy of the sum, and steps with that, whatever the user makes of the gradient."""

    @contextmanager
    def accumulate(self, module: nn.Module) -> Iterator[None]:
        with super().accumulate(module):
            yield
        kept = {param: param.grad.clone() for param in module.parameters() if param.grad is not None}

        def restore(*_: object) -> None:
            for param, grad in kept.items():
                param.grad = grad

        for optimizer in self.optimizers(module):
            optimizer.register_step_pre_hook(restore)


@fails("pipeline/fully_sharded_stages")
@fails("pipeline/fully_sharded_stages_accumulated")
class StepsReducedShards(AtTheLastMicroBatch):
    """Takes a reduced gradient for a complete one, which the schedule has yet to scale."""

    def on_gradient(self, param: Tensor) -> None:
        if isinstance(param, DTensor):
            Naive.on_gradient(self, param)
        else:
            super().on_gradient(param)


def _running_schedule() -> object:
    frame: FrameType | None = sys._getframe()
    while frame is not None and not hasattr(frame.f_locals.get("self"), "_n_microbatches"):
        frame = frame.f_back
    return frame and frame.f_locals["self"]
