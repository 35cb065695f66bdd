"""Seeds the random numbers of a run."""

from __future__ import annotations

import torch


def seed_random_numbers(seed: int, device: str) -> None:
    """Seed what a run on `device` draws from.

    `torch.manual_seed` also leaves a call, with the stack that it comes from, for each kind of accelerator that is not
    in use yet: where there is none, they cost a tenth of the time of a case, and pile up.
    """
    if device == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
