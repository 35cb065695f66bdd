"""Adapter of adv-optm: hooks that call `step_parameter`, as its documentation describes for a fused back pass.

The loop is that of OneTrainer, for which the library is made: a hook steps the parameter and frees its gradient, and
`step()` and `zero_grad()` still follow backward. There they find only what no hook has stepped.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from adv_optm import AdamW_adv, Lion_adv, SignSGD_adv

from inbackward_conformance.adapters.declarations import OwnOptimizer
from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn
    from torch.optim import Optimizer

distribution = "adv-optm"
spelling = "source"
exact = {"stochastic_rounding": False}  # it draws random numbers
own_optimizers = [  # not Prodigy_adv: it adds over parameters, in the order of their gradients
    OwnOptimizer("adv_optm:AdamW_adv", {"lr": 0.01, **exact}, [{"weight_decay": 0.1}, {"state_precision": "factored"}]),
    OwnOptimizer("adv_optm:Lion_adv", {"lr": 0.001, **exact}),
    OwnOptimizer("adv_optm:SignSGD_adv", {"lr": 0.001, "momentum": 0.0, **exact}),
]

attached: weakref.WeakKeyDictionary[Optimizer, None] = weakref.WeakKeyDictionary()


def apply(
    optimizer_class: Any, params: Iterable[Any], optimizer_kwargs: dict[str, Any], register_hook: bool = True
) -> None:
    """Make the optimizer, and register a hook on each of its parameters."""
    if optimizer_class not in {AdamW_adv, Lion_adv, SignSGD_adv}:
        raise NotOffered(f"step_parameter is a method of its own classes, not of {optimizer_class!r}")
    if not register_hook:
        raise NotOffered("without hooks it is an ordinary optimizer")
    optimizer = optimizer_class(params, **optimizer_kwargs)
    if is_shared(params_of(optimizer)):
        raise NotOffered("the hook frees the gradient: a parameter has one optimizer, which lists it once")
    attached[optimizer] = None
    for number, group in enumerate(optimizer.param_groups):
        for index, param in filter(lambda indexed: indexed[1].requires_grad, enumerate(group["params"])):
            param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


def is_shared(params: list[Tensor]) -> bool:
    return len({*params}) < len(params) or any({*params} & {*params_of(other)} for other in attached)


def step_and_free(optimizer: Any, number: int, index: int, param: Tensor) -> None:
    """Step a parameter, which is the one of this index in the group of this number; free its gradient."""
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def backward(loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
    loss.backward(**kwargs)
    for optimizer in optimizers(module):
        optimizer.step()
        optimizer.zero_grad()


def wrap_ddp(*_: Any, **__: Any) -> nn.Module:
    raise NotOffered("on several devices its documented hook reduces the gradient itself, before it steps")


def params_of(optimizer: Optimizer) -> list[Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def optimizers(module: nn.Module) -> list[Optimizer]:
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(params_of(optimizer))]
