"""Whether an optimizer can step its parameters apart from each other, found out on a small copy of it.

Two copies over tiny tensors make the same steps: one steps all parameters by one call, as the standard loop does, the
other one parameter after the other. What they come to must be equal, bit by bit. So there is no list of classes.
"""

from __future__ import annotations

import copy
import random
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from inbackward._small_copy import SmallCopy, few_of_each_kind, tiny_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.optim import Optimizer


def probe(optimizer: Optimizer) -> None:
    """Refuses an optimizer that gives another result when it steps its parameters apart from each other.

    Neither the optimizer nor any random state changes. Where even a copy's step of all parameters raises, nothing is
    refused: the standard loop raises too.

    Raises:
        TypeError: The optimizer needs a closure.
        ValueError: It draws random numbers, keeps state of its own or in its groups, moves parameters without
            gradient, or mixes its parameters.
    """
    name = type(optimizer).__name__
    with _random_states_kept(optimizer):
        together, apart = SmallCopy(optimizer), SmallCopy(optimizer)
        random_before = _random_states(optimizer)
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
        if _random_states(optimizer) != random_before:
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
    with _random_states_kept(None):
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


def _generators(optimizer: Optimizer | None) -> list[torch.device]:
    if optimizer is None:
        return []
    devices = {param.device for group in optimizer.param_groups for param in group["params"]}
    return [device for device in devices if device.type not in {"cpu", "meta"}]


def _random_states(optimizer: Optimizer | None) -> list[Any]:
    states: list[Any] = [torch.get_rng_state().tolist(), random.getstate()]
    states += [torch.get_device_module(each).get_rng_state(each).tolist() for each in _generators(optimizer)]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        _, key, position, *others = numpy.random.get_state()
        states.append((key.tobytes(), position, others))
    return states


@contextmanager
def _random_states_kept(optimizer: Optimizer | None) -> Iterator[None]:
    """Puts every random state back at the end."""
    devices = _generators(optimizer)
    of_torch = torch.get_rng_state()
    of_devices = [torch.get_device_module(device).get_rng_state(device) for device in devices]
    of_python = random.getstate()
    numpy = sys.modules.get("numpy")
    of_numpy = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(of_torch)
        for device, state in zip(devices, of_devices, strict=True):
            torch.get_device_module(device).set_rng_state(state, device)
        random.setstate(of_python)
        if numpy is not None:
            numpy.random.set_state(of_numpy)
