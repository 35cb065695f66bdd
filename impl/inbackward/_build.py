"""From what `torch.optim` takes as parameters and options to one optimizer a parameter; nothing is attached here."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.optim import Optimizer

from inbackward._params import can_have_gradient
from inbackward._probe import probe_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.optim.optimizer import ParamsT


class _Reader(Optimizer):
    """Torch's own reading of parameters, groups and names, with its own errors; it has no options and no state."""


def one_optimizer_each(
    optimizer_class: type[Optimizer], params: ParamsT, optimizer_kwargs: Mapping[str, Any]
) -> list[tuple[torch.Tensor, Optimizer]]:
    """Builds an optimizer for each distinct parameter, in order; together they do what one over all of them does.

    A parameter that is listed several times gets one optimizer that lists it as many times.

    Raises:
        TypeError: `optimizer_class` is no optimizer class or cannot step without a closure; `optimizer_kwargs` is no
            mapping; a parameter is no tensor.
        ValueError: A parameter is no leaf, or is in two groups; there is no parameter.
        Exception: Whatever the optimizer class raises for these options.
    """
    check_class(optimizer_class)
    _check_options(optimizer_kwargs)
    groups = _read(params)
    for group in groups:
        _check_params(group["params"])
    built = [
        (param, _build(optimizer_class, single, optimizer_kwargs))
        for group in groups
        for param, single in _split(group)
        if can_have_gradient(param)  # torch's optimizers never step what cannot
    ]
    probe_class(optimizer_class, groups, optimizer_kwargs)
    return built


def check_class(optimizer_class: object) -> None:
    """Refuses what is no optimizer class, or one whose step cannot be called without a closure.

    Raises:
        TypeError: It is refused.
    """
    if not (isinstance(optimizer_class, type) and issubclass(optimizer_class, Optimizer)):
        msg = (
            f"optimizer_class is {optimizer_class!r}, not a subclass of torch.optim.Optimizer. "
            f"Give the class itself, like torch.optim.AdamW, and its options as optimizer_kwargs."
        )
        raise TypeError(msg)
    refuse_closure(optimizer_class)


def refuse_closure(optimizer_class: type[Optimizer]) -> None:
    """Refuses a class whose step cannot be called without a closure.

    Raises:
        TypeError: It is such a class.
    """
    try:
        inspect.signature(optimizer_class.step).bind(object())
    except TypeError as error:
        msg = (
            f"{optimizer_class.__name__}.step() cannot be called without arguments ({error}). Inside backward there "
            f"is no closure to give to it: a closure calls backward itself. Use {optimizer_class.__name__} as an "
            f"ordinary optimizer, outside backward."
        )
        raise TypeError(msg) from None


def _check_options(optimizer_kwargs: object) -> None:
    if not isinstance(optimizer_kwargs, Mapping):
        msg = (
            f"optimizer_kwargs is {optimizer_kwargs!r}, not a mapping. "
            f"Give the options of the optimizer as a dict, {{}} for none."
        )
        raise TypeError(msg)


def _read(params: ParamsT) -> list[dict[str, Any]]:
    """Gives the parameter groups as torch understands them; the caller's own groups stay as they are."""
    given: Any = params
    if not isinstance(given, torch.Tensor):
        # A copy of each group: torch writes into them.
        given = [dict(item) if isinstance(item, dict) else item for item in given]
    return _Reader(given, {}).param_groups


def _check_params(params: list[torch.Tensor]) -> None:
    for param in params:
        if not param.is_leaf:
            msg = (
                f"can't optimize a non-leaf Tensor: a parameter of dtype {param.dtype} is the result of "
                f"{param.grad_fn}. Attach to the tensors that it was computed from."
            )
            raise ValueError(msg)


def _split(group: dict[str, Any]) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
    """Splits a group into one for each distinct parameter, with all of its listings, its names and the options."""
    options = {key: value for key, value in group.items() if key not in {"params", "param_names"}}
    listings: dict[torch.Tensor, list[Any]] = {}
    names = group.get("param_names")
    for index, param in enumerate(group["params"]):
        listings.setdefault(param, []).append(param if names is None else (names[index], param))
    for param, listed in listings.items():
        yield param, {"params": listed, **options}


def _build(optimizer_class: type[Optimizer], group: dict[str, Any], kwargs: Mapping[str, Any]) -> Optimizer:
    # Optimizer itself wants a second argument; its subclasses each have their own.
    make = cast("Callable[..., Optimizer]", optimizer_class)
    own_group = {key: value if key == "params" else _own(value) for key, value in group.items()}
    own_kwargs = {key: _own(value) for key, value in kwargs.items()}
    if len(group["params"]) == 1:
        return make([own_group], **own_kwargs)
    with warnings.catch_warnings():
        # Torch has said it when it read the parameters.
        warnings.filterwarnings("ignore", message="optimizer contains a parameter group with duplicate parameters")
        return make([own_group], **own_kwargs)


def _own(option: Any) -> Any:
    """Copies an option, so that neither the caller nor another optimizer sees what is done to it.

    An lr tensor that several optimizers hold would be multiplied by a scheduler once for each of them.
    """
    if isinstance(option, torch.Tensor):
        return option.detach().clone()
    if type(option) is dict:
        return {key: _own(value) for key, value in option.items()}
    if type(option) in {list, tuple, set}:
        return type(option)(_own(value) for value in option)
    return option
