"""The functional forms of optimizer classes: a row for each class of `torch.optim`, and those that users register."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import optim
from torch.optim.adadelta import adadelta
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam
from torch.optim.adamax import adamax
from torch.optim.rmsprop import rmsprop
from torch.optim.rprop import rprop
from torch.optim.sgd import sgd

from inbackward._functional import Entry, Form, FunctionalOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer
    from torch.optim.optimizer import ParamsT

    from inbackward._functional import Group


def functional_optimizer(optimizer_class: type[Optimizer], params: ParamsT, **options: Any) -> Any:
    """Makes the functional form of an optimizer: `step(gradients)` for all, `step_param(param, grad)` for one.

    Args:
        optimizer_class: SGD, Adam, AdamW, Adagrad, Adadelta, Adamax, RMSprop or Rprop of `torch.optim`, or a class
            that `register_functional_optimizer` was given.
        params: Whatever the class takes: parameters, named parameters, parameter groups.
        **options: Those of the class.

    Returns:
        A `FunctionalOptimizer`; for a registered class, what was registered for it makes.

    Raises:
        ValueError: There is no functional form of the class.
        Exception: Whatever the class raises for these parameters and options.
    """
    make = _registered.get(optimizer_class)
    if make is not None:
        return make(params, **options)
    form = FORMS.get(optimizer_class)
    if form is None:
        known = ", ".join(each.__name__ for each in (*FORMS, *_registered))
        msg = (
            f"There is no functional form of {optimizer_class!r}, only of {known}. Give one to "
            f"inbackward.register_functional_optimizer."
        )
        raise ValueError(msg)
    return FunctionalOptimizer(form, optimizer_class(params, **options))


def register_functional_optimizer(optimizer_class: type, functional_class: Callable[..., Any]) -> None:
    """Has `functional_optimizer(optimizer_class, params, **options)` call `functional_class(params, **options)`.

    Args:
        optimizer_class: The class that it is asked for by; it need not be one of torch.
        functional_class: What it makes has `step(gradients)`, and `step_param(param, grad)` to go behind a hook.

    Raises:
        TypeError: `optimizer_class` is no class, or `functional_class` cannot be called.
        ValueError: There is a functional form of the class already.
    """
    given: object = optimizer_class
    if not isinstance(given, type) or not callable(functional_class):
        msg = f"Expected a class and what makes its functional form, not {given!r} and {functional_class!r}."
        raise TypeError(msg)
    if optimizer_class in FORMS or optimizer_class in _registered:
        msg = f"There is a functional form of {optimizer_class!r} already. Register yours for a class of its own."
        raise ValueError(msg)
    _registered[optimizer_class] = functional_class


def _zeros(param: torch.Tensor, _: Group) -> torch.Tensor:
    return torch.zeros_like(param)


def _filled_with(option: str) -> Callable[[torch.Tensor, Group], torch.Tensor]:
    def filled(param: torch.Tensor, group: Group) -> torch.Tensor:
        value = float(group[option])
        return torch.full_like(param, complex(value, value) if param.is_complex() else value)

    return filled


def _no_steps(param: torch.Tensor, group: Group) -> torch.Tensor:
    beside_param = group.get("capturable") or group.get("fused")
    wide = torch.get_default_dtype() == torch.float64 and not group.get("fused")
    dtype = torch.float64 if wide else torch.float32
    return torch.zeros((), dtype=dtype, device=param.device if beside_param else "cpu")


_COUNT = Entry("step", _no_steps)
_BETAS = {"betas": ("beta1", "beta2")}
_ADAM = Form(
    adam,
    (Entry("exp_avg", _zeros), Entry("exp_avg_sq", _zeros), Entry("max_exp_avg_sq", _zeros, "amsgrad"), _COUNT),
    _BETAS,
)

FORMS: dict[type, Form] = {
    optim.SGD: Form(sgd, (Entry("momentum_buffer", None, "momentum"),)),
    optim.Adam: _ADAM,
    optim.AdamW: _ADAM,
    optim.Adagrad: Form(adagrad, (Entry("sum", _filled_with("initial_accumulator_value")), _COUNT)),
    optim.Adadelta: Form(adadelta, (Entry("square_avg", _zeros), Entry("acc_delta", _zeros), _COUNT)),
    optim.Adamax: Form(adamax, (Entry("exp_avg", _zeros), Entry("exp_inf", _zeros), _COUNT), _BETAS),
    optim.RMSprop: Form(
        rmsprop,
        (
            Entry("square_avg", _zeros),
            Entry("grad_avg", _zeros, "centered"),
            Entry("momentum_buffer", _zeros, "momentum"),
            _COUNT,
        ),
    ),
    optim.Rprop: Form(
        rprop,
        (Entry("prev", _zeros), Entry("step_size", _filled_with("lr")), _COUNT),
        {"etas": ("etaminus", "etaplus"), "step_sizes": ("step_size_min", "step_size_max")},
    ),
}
_registered: dict[type, Callable[..., Any]] = {}
