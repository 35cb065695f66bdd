"""Mutants of an optimizer behind a communication hook: what goes wrong between a bucket and a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import inbackward
from mutants.of_functional import OffersFunctional
from mutants.registry import base, fails


@base
class OffersHook(OffersFunctional):
    """Sound; a mutant replaces one of the methods."""

    def hook_then_optimizer(self, ddp: Any, hook: Any, state: Any, functional: Any, params: Any = None) -> None:
        inbackward.hook_then_optimizer(ddp, hook, state, functional, params)


class StepsInTheHook(OffersHook):
    """What some others are made from: torch's way, which is unsound for parameters that no rank uses."""

    def hook_then_optimizer(self, ddp: Any, hook: Any, state: Any, functional: Any, params: Any = None) -> None:
        self.chosen = set(ddp.parameters() if params is None else params)
        self.functional = functional
        ddp.register_comm_hook(
            state, lambda state, bucket: self.communicate(state, bucket).then(lambda done: self.step(done, bucket))
        )
        self.hook = hook  # not that of a second call, which raises

    def communicate(self, state: Any, bucket: Any) -> Any:
        return self.hook(state, bucket)

    def step(self, done: Any, bucket: Any) -> Any:
        for param, grad in zip(bucket.parameters(), bucket.gradients(), strict=True):
            if param in self.chosen:
                self.functional.step_param(param, grad)
        return bucket.buffer()


@fails("hook_then_optimizer/unused_parameters", "all-ranks-views")
@fails("hook_then_optimizer/foreign_parameters")
class TakesNoGradientForZeros(StepsInTheHook):
    """Steps whatever is in the bucket."""


@fails("hook_then_optimizer/allreduce", "2")
class StepsBeforeTheHook(StepsInTheHook):
    def communicate(self, state: Any, bucket: Any) -> Any:
        super().step(None, bucket)
        return super().communicate(state, bucket)

    def step(self, done: Any, bucket: Any) -> Any:
        return bucket.buffer()


@fails("hook_then_optimizer/compression", "fp16-2")
@fails("hook_then_optimizer/power_sgd")
class KnowsOneHook(StepsInTheHook):
    def communicate(self, state: Any, bucket: Any) -> Any:
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]  # as DDP calls it


@fails("hook_then_optimizer/every_optimizer")
@fails("hook_then_optimizer/static_graph")
class StepsTwice(StepsInTheHook):
    def step(self, done: Any, bucket: Any) -> Any:
        super().step(done, bucket)
        return super().step(done, bucket)


@fails("hook_then_optimizer/some_parameters")
class StepsAllThatItHolds(OffersHook):
    """Forgets `params`, and makes the optimizer hold what it lacks."""

    def functional_optimizer(self, optimizer_class: Any, params: Iterable[Any], **options: Any) -> Any:
        self.make: Callable[[Any], Any] = partial(inbackward.functional_optimizer, optimizer_class, **options)
        return super().functional_optimizer(optimizer_class, params, **options)

    def hook_then_optimizer(self, ddp: Any, hook: Any, state: Any, functional: Any, params: Any = None) -> None:
        super().hook_then_optimizer(ddp, hook, state, self.make(list(ddp.parameters())))


@fails("hook_then_optimizer/no_sync")
class ForgetsWhatHasAccumulated(OffersHook):
    def hook_then_optimizer(self, ddp: Any, *arguments: Any, **options: Any) -> None:
        super().hook_then_optimizer(ddp, *arguments, **options)
        ddp.register_forward_pre_hook(lambda module, _: module.zero_grad())


@fails("hook_then_optimizer/many_buckets")
class StepsTheFirstBucket(StepsInTheHook):
    def step(self, done: Any, bucket: Any) -> Any:
        return super().step(done, bucket) if bucket.index() == 0 else bucket.buffer()


@fails("hook_then_optimizer/gradients_stay")
class FreesGradients(StepsInTheHook):
    def step(self, done: Any, bucket: Any) -> Any:
        super().step(done, bucket)
        return bucket.buffer().zero_()


@fails("hook_then_optimizer/without_step_param")
class AsksInBackward(StepsInTheHook):
    """Finds out in the middle of backward what the optimizer cannot do."""


@fails("hook_then_optimizer/registered_twice")
class RegistersInSilence(OffersHook):
    def hook_then_optimizer(self, ddp: Any, *arguments: Any, **options: Any) -> None:
        with suppress(ValueError):
            super().hook_then_optimizer(ddp, *arguments, **options)
