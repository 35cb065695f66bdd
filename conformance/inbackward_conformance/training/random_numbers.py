"""Seeds the random number generators of a run."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def seed_random_numbers(seed: int, device: str) -> None:
    """Seed the generators that a run on `device` uses.

    `torch.manual_seed` also queues a call, with its stack, for each kind of accelerator that is not initialised. On a
    machine without one, these calls accumulate, and take a tenth of the time of a case.
    """
    if device == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def seed_all_random_numbers(seed: int, device: str) -> None:
    """Seed these generators, and those of Python and NumPy, which an implementation may draw from."""
    seed_random_numbers(seed, device)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the generator that everybody shares)


@contextmanager
def restored_random_numbers() -> Iterator[None]:
    """Restore the states of all of these generators at the end."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
