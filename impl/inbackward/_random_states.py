"""Random states of torch, Python and NumPy."""

from __future__ import annotations

import random
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def _of_own_generator(params: Iterable[torch.Tensor]) -> list[torch.device]:
    devices = {param.device for param in params}
    return [device for device in devices if device.type not in {"cpu", "meta"}]


def random_states(params: Iterable[torch.Tensor]) -> list[Any]:
    states: list[Any] = [torch.get_rng_state().tolist(), random.getstate()]
    states += [torch.get_device_module(each).get_rng_state(each).tolist() for each in _of_own_generator(params)]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        _, key, position, *others = numpy.random.get_state()
        states.append((key.tobytes(), position, others))
    return states


@contextmanager
def random_states_kept(params: Iterable[torch.Tensor]) -> Iterator[None]:
    """Puts every random state back at the end."""
    devices = _of_own_generator(params)
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
