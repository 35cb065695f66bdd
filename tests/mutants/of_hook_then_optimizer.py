"""Mutants of an optimizer behind a communication hook: what goes wrong between a bucket and a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import inbackward
from mutants.of_functional import OffersFunctional
from mutants.registry import base, fails

if TYPE_CHECKING:
    from torch import Tensor, nn


@base
class OffersHook(OffersFunctional):
    """Sound; a mutant replaces one of the methods."""

    def hook_then_optimizer(
        self, ddp: Any, comm_hook: Any, state: Any, functional: Any, params: Iterable[Tensor] | None = None
    ) -> None:
        inbackward.hook_then_optimizer(ddp, comm_hook, state, functional, params)


class StepsInTheHook(OffersHook):
    """What some others are made from: torch's way, which is unsound for parameters that no rank uses."""

    def hook_then_optimizer(
        self, ddp: Any, comm_hook: Any, state: Any, functional: Any, params: Iterable[Tensor] | None = None
    ) -> None:
        chosen = set(ddp.parameters() if params is None else params)

        self.chosen, self.functional = chosen, functional
        ddp.register_comm_hook(
            state,
            lambda state, bucket: self.communicate(comm_hook, state, bucket).then(lambda done: self.step(done, bucket)),
        )

    def communicate(self, comm_hook: Any, state: Any, bucket: Any) -> Any:
        return comm_hook(state, bucket)

    def step(self, done: Any, bucket: Any) -> Tensor:  # type: ignore[override]
        for param, grad in zip(bucket.parameters(), bucket.gradients(), strict=True):
            if param in self.chosen:
                self.functional.step_param(param, grad)
        return bucket.buffer()  # type: ignore[no-any-return]


@fails("hook_then_optimizer/unused_parameters", "all-ranks-views")
@fails("hook_then_optimizer/foreign_parameters")
class TakesNoGradientForZeros(StepsInTheHook):
    """Steps whatever is in the bucket."""


@fails("hook_then_optimizer/allreduce", "2")
class StepsBeforeTheHook(StepsInTheHook):
    """By gradients of this rank alone."""

    def communicate(self, comm_hook: Any, state: Any, bucket: Any) -> Any:
        super().step(None, bucket)
        return super().communicate(comm_hook, state, bucket)

    def step(self, done: Any, bucket: Any) -> Tensor:  # type: ignore[override]
        return bucket.buffer()  # type: ignore[no-any-return]


@fails("hook_then_optimizer/compression", "fp16-2")
@fails("hook_then_optimizer/power_sgd")
class KnowsOneHook(StepsInTheHook):
    """Whatever it is given, it all-reduces."""

    def communicate(self, comm_hook: Any, state: Any, bucket: Any) -> Any:
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]  # as DDP calls it


@fails("hook_then_optimizer/every_optimizer")
@fails("hook_then_optimizer/static_graph")
class StepsTwice(StepsInTheHook):
    """In the hook, and again when it is done."""

    def step(self, done: Any, bucket: Any) -> Tensor:  # type: ignore[override]
        super().step(done, bucket)
        return super().step(done, bucket)


@fails("hook_then_optimizer/some_parameters")
class StepsAllThatItHolds(OffersHook):
    """Forgets `params`, and makes the optimizer hold what it lacks."""

    def functional_optimizer(self, optimizer_class: Any, params: Iterable[Any], **options: Any) -> Any:
        self.make: Callable[[Any], Any] = partial(inbackward.functional_optimizer, optimizer_class, **options)
        return super().functional_optimizer(optimizer_class, params, **options)

    def hook_then_optimizer(
        self, ddp: Any, comm_hook: Any, state: Any, functional: Any, params: Iterable[Tensor] | None = None
    ) -> None:
        super().hook_then_optimizer(ddp, comm_hook, state, self.make(list(ddp.parameters())))


@fails("hook_then_optimizer/no_sync")
class ForgetsWhatHasAccumulated(OffersHook):
    """Starts each forward with a clean slate."""

    def hook_then_optimizer(self, ddp: nn.Module, *arguments: Any, **options: Any) -> None:
        super().hook_then_optimizer(ddp, *arguments, **options)
        ddp.register_forward_pre_hook(_zero_grad)


@fails("hook_then_optimizer/many_buckets")
class StepsTheFirstBucket(StepsInTheHook):
    """Has seen one bucket in all its life."""

    def step(self, done: Any, bucket: Any) -> Tensor:  # type: ignore[override]
        return super().step(done, bucket) if bucket.index() == 0 else bucket.buffer()


@fails("hook_then_optimizer/gradients_stay")
class FreesGradients(StepsInTheHook):
    """Leaves zeros behind."""

    def step(self, done: Any, bucket: Any) -> Tensor:  # type: ignore[override]
        super().step(done, bucket)
        return bucket.buffer().zero_()  # type: ignore[no-any-return]


@fails("hook_then_optimizer/without_step_param")
class AsksInBackward(StepsInTheHook):
    """Finds out in the middle of backward what the optimizer cannot do."""


@fails("hook_then_optimizer/registered_twice")
class RegistersInSilence(OffersHook):
    """Takes a second registration for the first."""

    def hook_then_optimizer(self, ddp: Any, *arguments: Any, **options: Any) -> None:
        with suppress(ValueError):
            super().hook_then_optimizer(ddp, *arguments, **options)


def _zero_grad(module: nn.Module, _: Any) -> None:
    module.zero_grad()
