"""Whether an optimizer can step its parameters apart from each other, found out on a small copy of it.

Two copies over tiny tensors make the same steps: one steps all parameters by one call, as the standard loop does, the
other one parameter after the other. What they come to must be equal, bit by bit. So there is no list of classes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from inbackward._params import listed_params
from inbackward._random_states import random_states, random_states_kept
from inbackward._small_copy import SmallCopy, few_of_each_kind, tiny_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer


def probe(optimizer: Optimizer) -> None:
    """Refuses an optimizer that gives another result when it steps its parameters apart from each other.

    Neither the optimizer nor any random state changes, unless a step changes something outside of the optimizer. Where
    even a copy's step of all parameters raises, nothing is refused: the standard loop raises too.

    Raises:
        TypeError: The optimizer needs a closure.
        ValueError: It draws random numbers, keeps state of its own or in its groups, moves parameters without
            gradient, or mixes its parameters.
    """
    name = type(optimizer).__name__
    params = listed_params(optimizer)
    with random_states_kept(params):
        together, apart = SmallCopy(optimizer), SmallCopy(optimizer)
        random_before = random_states(params)
        try:
            together.step_together()
        except Exception:  # noqa: BLE001 -- whatever the class raises; SparseAdam does for dense gradients
            if SmallCopy(optimizer).steps_with_closure():
                msg = (
                    f"{name}.step() needs a closure, as a small copy of the optimizer shows. Inside backward there is "
                    f"none to give to it: a closure calls backward itself. Use {name} as an ordinary optimizer."
                )
                raise TypeError(msg) from None
            together, apart = SmallCopy(optimizer, sparse=True), SmallCopy(optimizer, sparse=True)
            try:
                together.step_together()
            except Exception:  # noqa: BLE001
                return
        if random_states(params) != random_before:
            raise ValueError(_refusal(name, "it draws random numbers, in the order in which parameters are stepped"))
        try:
            apart.step_apart()
        except Exception as error:
            why = f"stepping one parameter after the other raises {type(error).__name__}: {error}"
            raise ValueError(_refusal(name, why)) from error
        differs = together.difference(apart)
    if differs:
        raise ValueError(_refusal(name, differs))


def probe_class(optimizer_class: type[Optimizer], groups: list[dict[str, Any]], options: Mapping[str, Any]) -> None:
    """Refuses an optimizer class as `probe` does an optimizer.

    Args:
        optimizer_class: The class.
        groups: Parameter groups; of their parameters only number of dimensions, dtype and device count.
        options: What the class takes by name.

    Raises:
        TypeError: As `probe`.
        ValueError: As `probe`.
    """
    tiny = [{**group, "params": [tiny_of(param) for param in few_of_each_kind(group["params"])]} for group in groups]
    for group in tiny:
        group.pop("param_names", None)
    with random_states_kept([]):
        try:
            optimizer = optimizer_class(copy.deepcopy(tiny), **copy.deepcopy(dict(options)))
        except Exception:  # noqa: BLE001 -- it wants larger parameters than tiny ones
            return
    probe(optimizer)


def _refusal(name: str, why: str) -> str:
    return (
        f"{name} cannot step inside backward, where it steps some of its parameters at a time: {why}. A small copy of "
        f"the optimizer shows it; nothing has changed. If an option of {name} turns that off, set it; otherwise use "
        f"{name} as an ordinary optimizer, after backward."
    )
