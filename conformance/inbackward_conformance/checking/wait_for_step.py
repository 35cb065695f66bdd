"""Waits inside a backward until a parameter has been stepped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from inbackward_conformance.tensors import local

if TYPE_CHECKING:
    from torch import Tensor


@torch.no_grad()
def is_stepped_within(seconds: float, param: Tensor, before: Tensor) -> bool:
    """Return whether the shard of `param` on this rank comes to differ from `before`, in so many seconds at most.

    Its values are looked at again and again: only a step by `Optimizer.step` has hooks that could tell. No view of them
    is made, since an implementation may put off a step as long as something else uses the parameter's memory.
    """
    ends = time.monotonic() + seconds
    while local(param).shape != before.shape or torch.equal(local(param), before):
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True
