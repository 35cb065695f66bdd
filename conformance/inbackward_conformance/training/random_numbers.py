"""Seeds the random number generators of a run."""

from __future__ import annotations

import random

import numpy as np
import torch


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
