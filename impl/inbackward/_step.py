"""Steps of several parameters with all of their optimizers, and what is said where one cannot be stepped."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from inbackward import _engine
from inbackward._names import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch
    from torch.optim import Optimizer

    from inbackward._protocols import Assigned, Attached


@_engine.run_eagerly
def step_together(attachments: Sequence[Attached]) -> None:
    """Steps all optimizers of these parameters and frees the gradients, as the standard loop does after backward.

    Those that hold no gradient are left alone. Each optimizer steps all of its parameters before the next one does.
    """
    holding = [attachment for attachment in attachments if attachment.param.grad is not None]
    if not holding:
        return
    assignments: Iterable[Assigned]
    if len(holding) == 1:
        assignments = holding[0].optimizers
    else:
        found = {assignment for attachment in holding for assignment in attachment.optimizers}
        assignments = sorted(found, key=attrgetter("number"))
    for assignment in assignments:
        if assignment.changes:
            assignment.change(holding)  # in the mode of backward, as gradients were made: inference mode, perhaps
    with _engine.outside_backward():
        for assignment in assignments:
            assignment.step(holding)
    for attachment in holding:
        attachment.param.grad = None


def twice(param: torch.Tensor, optimizers: Sequence[Optimizer]) -> str:
    """What is said of a parameter whose gradient comes in two parts."""
    return (
        f"The gradient of {name_of(param, optimizers)} came twice in one backward, and the parameter was already "
        f"stepped with the first part, as others may have been: the optimizer in backward cannot give the standard "
        f"result here. Reentrant activation checkpointing of a parameter that is used more than once does this: pass "
        f"use_reentrant=False to torch.utils.checkpoint.checkpoint. So does a backward() inside a hook or a custom "
        f"autograd Function, or in another thread: use an ordinary optimizer for this parameter (inbackward.detach)."
    )
