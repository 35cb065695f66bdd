"""Mutants that take the user's own optimizer: what goes wrong between it and what steps inside backward."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from mutants.registry import base, fails

if TYPE_CHECKING:
    from torch.optim import Optimizer


@base
class AtTheEnd:
    """What the others are made from: the whole optimizer steps at the end of a backward that reaches a parameter."""

    def __init__(self) -> None:
        self.handed: list[Handed] = []
        self.waits = 0
        self.queued = False

    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        for optimizer_class, params, optimizer_kwargs, _ in assignments:
            self.hand_over(optimizer_class(params, **optimizer_kwargs))

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        params = set(module.parameters())
        return [handed.optimizer for handed in self.handed if not params.isdisjoint(handed.params)]

    def hand_over(self, optimizer: Optimizer) -> Handed:
        self.refuse(optimizer)
        handed = Handed(self, optimizer)
        self.handed.append(handed)
        return handed

    def refuse(self, optimizer: Optimizer) -> None:
        if inspect.signature(type(optimizer).step).parameters["closure"].default is inspect.Parameter.empty:
            raise TypeError(f"{type(optimizer).__name__} needs a closure: step it after backward")

    def on_gradient(self, param: Tensor) -> None:
        if not self.waits and not self.queued:
            self.queued = True
            Variable._execution_engine.queue_callback(self.finish)

    def finish(self) -> None:
        self.queued = False
        with torch.enable_grad():
            self.step()
        self.free()

    def step(self) -> None:
        for handed in self.handed:
            handed.step()

    def free(self) -> None:
        for handed in self.handed:
            handed.optimizer.zero_grad()

    @contextmanager
    def accumulate(self, module: nn.Module) -> Iterator[None]:
        self.waits += 1
        try:
            yield
        finally:
            self.waits -= 1

    def backward_clipped(
        self, loss: Tensor, module: nn.Module, max_norm: float | None = None, scaler: Any = None, **options: Any
    ) -> Tensor | None:
        with self.accumulate(module):
            (scaler.scale(loss) if scaler else loss).backward()
        everything, own = self.handed, self.optimizers(module)
        self.handed = [handed for handed in everything if handed.optimizer in own]
        try:
            return self.step_clipped(max_norm, scaler, **options)
        finally:
            self.handed = everything

    def step_clipped(self, max_norm: float | None, scaler: Any, **options: Any) -> Tensor | None:
        if scaler:
            self.unscale(scaler)
        norm = None if max_norm is None else self.clip(max_norm, **options)
        for handed in self.handed:
            self.step_scaled(handed, scaler)
        if scaler:
            self.update(scaler)
        self.free()
        return norm

    def unscale(self, scaler: Any) -> None:
        for handed in self.handed:
            scaler.unscale_(handed.optimizer)

    def clip(self, max_norm: float, **options: Any) -> Tensor:
        params = dict.fromkeys(param for handed in self.handed for param in handed.params)
        return torch.nn.utils.clip_grad_norm_(params, max_norm, **options)

    def step_scaled(self, handed: Handed, scaler: Any) -> None:
        if scaler:
            scaler.step(handed.optimizer)
        else:
            handed.step()

    def update(self, scaler: Any) -> None:
        scaler.update()


class Handed:
    """An optimizer that was handed over, and the hooks on its parameters."""

    def __init__(self, owner: AtTheEnd, optimizer: Optimizer) -> None:
        self.owner = owner
        self.optimizer = optimizer
        self.hooks: dict[Tensor, Any] = {}
        self.follow()
        add = optimizer.add_param_group

        def add_param_group(group: dict[str, Any]) -> None:
            add(group)
            self.follow()

        optimizer.__dict__["add_param_group"] = add_param_group

    @property
    def params(self) -> list[Any]:
        return list(self.hooks)

    def follow(self) -> None:
        for param in (param for group in self.optimizer.param_groups for param in group["params"]):
            if param not in self.hooks:
                self.hooks[param] = param.register_post_accumulate_grad_hook(self.owner.on_gradient)

    def step(self) -> None:
        self.optimizer.step()

    def remove(self) -> None:
        for hook in self.hooks.values():
            hook.remove()
        self.owner.handed.remove(self)


def held(handed: Handed) -> list[Tensor]:
    return [param for param in handed.params if param.grad is not None]


@fails("handed_over/same_object")
class ListsACopy(AtTheEnd):
    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return [copy.copy(optimizer) for optimizer in super().optimizers(module)]


@fails("handed_over/one_scheduler", "CosineAnnealingLR")
class LearningRateOfTheHandOver(AtTheEnd):
    def hand_over(self, optimizer: Optimizer) -> Handed:
        optimizer.defaults["of the hand-over"] = optimizer.param_groups[0]["lr"]
        return super().hand_over(optimizer)

    def step(self) -> None:
        for handed in self.handed:
            for group in handed.optimizer.param_groups:
                group["lr"] = handed.optimizer.defaults["of the hand-over"]
        super().step()


@fails("handed_over/checkpoint_for_the_ordinary_loop")
class SavesNoState(AtTheEnd):
    """The state lives elsewhere, and `state_dict` does not know of it."""

    def hand_over(self, optimizer: Optimizer) -> Handed:
        optimizer.register_state_dict_post_hook(lambda _, state: {**state, "state": {}})
        return super().hand_over(optimizer)


@fails("handed_over/checkpoint_of_the_ordinary_loop")
class KeepsTheStateOfTheHandOver(AtTheEnd):
    """What is loaded goes into another dict than the one that steps use."""

    def hand_over(self, optimizer: Optimizer) -> Handed:
        optimizer.__dict__["own"] = optimizer.state
        return super().hand_over(optimizer)

    def step(self) -> None:
        for handed in self.handed:
            handed.optimizer.state = handed.optimizer.__dict__["own"]
        super().step()


@fails("handed_over/leftover_calls")
class FreesBeforeTheNextBackward(AtTheEnd):
    def free(self) -> None:
        self.stepped = [param for handed in self.handed for param in held(handed)]

    def backward(self, loss: Tensor, module: nn.Module, **options: Any) -> None:
        for param in self.__dict__.pop("stepped", []):
            param.grad = None
        loss.backward(**options)


@fails("handed_over/group_added_later")
class StepsTheGroupsOfTheHandOver(AtTheEnd):
    def hand_over(self, optimizer: Optimizer) -> Handed:
        handed = super().hand_over(optimizer)
        optimizer.__dict__["groups"] = len(optimizer.param_groups)
        return handed

    def step(self) -> None:
        for handed in self.handed:
            every_group = handed.optimizer.param_groups
            handed.optimizer.param_groups = every_group[: handed.optimizer.__dict__["groups"]]
            handed.step()
            handed.optimizer.param_groups = every_group


@fails("handed_over/removed")
class LeavesItsHooks(AtTheEnd):
    def hand_over(self, optimizer: Optimizer) -> Handed:
        handed = super().hand_over(optimizer)
        handed.remove = lambda: None  # type: ignore[method-assign]
        return handed


class OneByOne(AtTheEnd):
    """Steps one parameter after the other."""

    def step(self) -> None:
        for handed in self.handed:
            for group in handed.optimizer.param_groups:
                params = group["params"]
                for param in [each for each in params if each.grad is not None]:
                    group["params"] = [param]
                    handed.step()
                group["params"] = params


@fails("handed_over/mixed_parameters", "CountsCalls")
class TakesWhatCountsItsCalls(OneByOne):
    """Does not look at what the class does."""


@fails("handed_over/closure")
class TakesEveryClass(AtTheEnd):
    def refuse(self, optimizer: Optimizer) -> None:
        pass


@fails("handed_over/two_optimizers")
class LastHandedOverFirst(AtTheEnd):
    def step(self) -> None:
        for handed in reversed(self.handed):
            handed.step()


@fails("accumulation/micro_batches", "SGD-two")
class StepsEveryMicroBatch(AtTheEnd):
    @contextmanager
    def accumulate(self, module: nn.Module) -> Iterator[None]:
        yield


@fails("accumulation/between_ordinary_steps")
class SkipsTheStepAfterASum(AtTheEnd):
    """Its switch is off again only after the backward that follows the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.skips = False
        self.summed = False

    @contextmanager
    def accumulate(self, module: nn.Module) -> Iterator[None]:
        with super().accumulate(module):
            yield
        self.summed = True

    def step(self) -> None:
        if not self.skips:
            super().step()
        self.skips, self.summed = self.summed, False


class StepsSome(AtTheEnd):
    """Steps those parameters alone that `chosen` returns, and leaves the others their gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.reached: set[Tensor] = set()

    def on_gradient(self, param: Tensor) -> None:
        super().on_gradient(param)
        if not self.waits:
            self.reached.add(param)

    def chosen(self, param: Tensor) -> bool:
        raise NotImplementedError

    def finish(self) -> None:
        others = {param: param.grad for handed in self.handed for param in held(handed) if not self.chosen(param)}
        for param in others:
            param.grad = None
        super().finish()
        for param, grad in others.items():
            param.grad = grad
        self.reached.clear()


@fails("accumulation/reached_by_the_first_alone")
class StepsWhatTheLastReaches(StepsSome):
    def chosen(self, param: Tensor) -> bool:
        return param in self.reached


@fails("accumulation/frozen_between")
class StepsNothingFrozen(StepsSome):
    def chosen(self, param: Tensor) -> bool:
        return param.requires_grad


@fails("accumulation/error_in_one")
class ForgetsTheSumAfterAnError(AtTheEnd):
    @contextmanager
    def accumulate(self, module: nn.Module) -> Iterator[None]:
        with super().accumulate(module):
            try:
                yield
            except Exception:
                self.free()
                raise


@fails("accumulation/two_optimizers")
class OneOfTwoAccumulates(AtTheEnd):
    """Where there are several, the first one steps all the same."""

    @contextmanager
    def accumulate(self, module: nn.Module) -> Iterator[None]:
        with super().accumulate(module):
            yield
        for handed in self.handed[:-1]:
            handed.step()


@fails("accumulation/shared_parameter")
class AveragesMicroBatches(AtTheEnd):
    def __init__(self) -> None:
        super().__init__()
        self.count = 1

    @contextmanager
    def accumulate(self, module: nn.Module) -> Iterator[None]:
        with super().accumulate(module):
            yield
        self.count += 1

    def step(self) -> None:
        for handed in self.handed:
            for param in held(handed):
                param.grad.div_(self.count)  # type: ignore[union-attr]
        self.count = 1
        super().step()


@fails("clipping/norm", "SGD-above")
class ClipsEachAlone(AtTheEnd):
    def clip(self, max_norm: float, **options: Any) -> Any:
        norms = [
            torch.nn.utils.clip_grad_norm_(param, max_norm, **options)
            for handed in self.handed
            for param in handed.params
        ]
        return torch.stack(norms).norm()


@fails("clipping/non_finite", "inf")
class SkipsWhatIsNotFinite(AtTheEnd):
    def clip(self, max_norm: float, **options: Any) -> Tensor:
        norm = super().clip(max_norm, **options)
        if not norm.isfinite():
            self.free()
        return norm


@fails("clipping/several_optimizers")
class ClipsEachOptimizerAlone(AtTheEnd):
    def clip(self, max_norm: float, **options: Any) -> Any:
        norms = [torch.nn.utils.clip_grad_norm_(handed.params, max_norm, **options) for handed in self.handed]
        return torch.stack(norms).norm()


@fails("clipping/frozen_and_unused")
class UnusedIsZero(AtTheEnd):
    def clip(self, max_norm: float, **options: Any) -> Tensor:
        for handed in self.handed:
            for param in handed.params:
                if param.grad is None:
                    param.grad = torch.zeros_like(param)
        return super().clip(max_norm, **options)


@fails("clipping/after_micro_batches")
class ClipsTheLastMicroBatch(AtTheEnd):
    def backward_clipped(self, loss: Tensor, module: nn.Module, *args: Any, **options: Any) -> Tensor | None:
        self.before = {param: param.grad for handed in self.handed for param in held(handed)}
        for param in self.before:
            param.grad = None
        return super().backward_clipped(loss, module, *args, **options)

    def clip(self, max_norm: float, **options: Any) -> Tensor:
        norm = super().clip(max_norm, **options)
        for param, grad in self.before.items():
            param.grad = grad if param.grad is None or grad is None else param.grad + grad
        return norm


@fails("clipping/scaler", "SGD-clipped")
class ClipsWhatIsScaled(AtTheEnd):
    def unscale(self, scaler: Any) -> None:
        pass


@fails("clipping/overflow", "SGD-unclipped")
class StepsInSpiteOfOverflow(AtTheEnd):
    def step_scaled(self, handed: Handed, scaler: Any) -> None:
        handed.step()


@fails("clipping/overflow_of_one_optimizer")
class SkipsAllForOne(AtTheEnd):
    def backward_clipped(
        self, loss: Tensor, module: nn.Module, max_norm: float | None = None, scaler: Any = None, **options: Any
    ) -> Tensor | None:
        self.before = [
            (param, param.detach().clone(), copy.deepcopy(handed.optimizer.state[param]))
            for handed in self.handed
            for param in handed.params
        ]
        scale = scaler.get_scale() if scaler else 0.0
        norm = super().backward_clipped(loss, module, max_norm, scaler, **options)
        if scaler and scaler.get_scale() < scale:
            for param, value, _ in self.before:
                param.detach().copy_(value)
            for handed in self.handed:
                for param, _, state in self.before:
                    if param in handed.optimizer.state:
                        handed.optimizer.state[param] = state
        return norm


@fails("clipping/returned_norm")
class ReturnsTheClippedNorm(AtTheEnd):
    def clip(self, max_norm: float, **options: Any) -> Tensor:
        return super().clip(max_norm, **options).clamp(max=max_norm)


@fails("clipping/returned_scale")
class NeverUpdatesTheScale(AtTheEnd):
    def update(self, scaler: Any) -> None:
        scale = scaler.get_scale()
        scaler.update()
        scaler.update(scale)


@fails("clipping/error_if_nonfinite")
class NoErrorIfNonfinite(AtTheEnd):
    def clip(self, max_norm: float, error_if_nonfinite: bool = False, **options: Any) -> Tensor:
        return super().clip(max_norm, **options)
