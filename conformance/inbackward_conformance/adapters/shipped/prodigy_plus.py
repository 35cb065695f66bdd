"""Adapter of prodigy-plus-schedule-free: `fused_back_pass=True`, and hooks that call `step_parameter`.

The hook is that of the trainers which have a fused back pass, OneTrainer and sd-scripts: one for each parameter of each
group, which steps the parameter and frees its gradient.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from prodigyplus import ProdigyPlusScheduleFree

from inbackward_conformance.adapters.declarations import OwnOptimizer
from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

distribution = "prodigy-plus-schedule-free"
spelling = "source"
own_optimizers = [
    OwnOptimizer(
        "prodigyplus:ProdigyPlusScheduleFree",
        # Stochastic rounding draws random numbers. From the default d0=1e-6, a few steps move hardly anything.
        {"d0": 1e-5, "stochastic_rounding": False},
        variants=[{"use_schedulefree": False}, {"weight_decay": 0.1}, {"split_groups": False}, {"use_speed": True}],
        lacks={"complex", "sparse"},
    )
]
rounding = (1e-5, "the estimate of the step size is a sum over parameters in the order of their gradients")

attached: weakref.WeakKeyDictionary[ProdigyPlusScheduleFree, None] = weakref.WeakKeyDictionary()


def apply(
    optimizer_class: Any, params: Iterable[Any], optimizer_kwargs: dict[str, Any], register_hook: bool = True
) -> None:
    """Make the optimizer, and register a hook on each of its parameters."""
    if optimizer_class is not ProdigyPlusScheduleFree:
        raise NotOffered(f"it is an optimizer of its own, and steps no {optimizer_class!r}")
    if not register_hook:
        raise NotOffered("without hooks, step() of an optimizer with fused_back_pass=True does nothing")
    optimizer = ProdigyPlusScheduleFree(params, fused_back_pass=True, **optimizer_kwargs)
    if is_shared(params_of(optimizer)):
        raise NotOffered("the hook frees the gradient: a parameter has one optimizer, which lists it once")
    attached[optimizer] = None
    for number, group in enumerate(optimizer.param_groups):
        for index, param in filter(lambda indexed: indexed[1].requires_grad, enumerate(group["params"])):
            param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


def is_shared(params: list[Tensor]) -> bool:
    return len({*params}) < len(params) or any({*params} & {*params_of(other)} for other in attached)


def step_and_free(optimizer: ProdigyPlusScheduleFree, number: int, index: int, param: Tensor) -> None:
    """Step a parameter, which is the one of this index in the group of this number; free its gradient."""
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def params_of(optimizer: ProdigyPlusScheduleFree) -> list[Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def optimizers(module: nn.Module) -> list[ProdigyPlusScheduleFree]:
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(params_of(optimizer))]
