"""Random states of torch, Python and NumPy."""

from __future__ import annotations

import random
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class _Generator(NamedTuple):
    read: Callable[[], Any]
    write: Callable[[Any], object]


def random_states(params: Iterable[torch.Tensor]) -> list[Any]:
    """The state of every generator that code on the devices of these parameters may use, to be compared by `==`."""
    return [_comparable(generator.read()) for generator in _generators(params)]


@contextmanager
def random_states_kept(params: Iterable[torch.Tensor]) -> Iterator[None]:
    """Puts every such state back at the end."""
    before = [(generator, generator.read()) for generator in _generators(params)]
    try:
        yield
    finally:
        for generator, state in before:
            generator.write(state)


def _generators(params: Iterable[torch.Tensor]) -> list[_Generator]:
    found = [_Generator(torch.get_rng_state, torch.set_rng_state), _Generator(random.getstate, random.setstate)]
    for device in {param.device for param in params}:
        if device.type not in {"cpu", "meta"}:
            module = torch.get_device_module(device)
            read, write = partial(module.get_rng_state, device), partial(module.set_rng_state, device=device)
            found.append(_Generator(read, write))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        found.append(_Generator(numpy.random.get_state, numpy.random.set_state))
    return found


def _comparable(state: Any) -> Any:
    if isinstance(state, tuple):
        return tuple(map(_comparable, state))
    return state.tolist() if hasattr(state, "tolist") else state  # a tensor, or an array of NumPy's
