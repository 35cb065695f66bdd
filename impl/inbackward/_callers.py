"""Refuses to step where whoever called backward goes on to change the gradients, or to add more to them.

Nothing on a parameter or its gradient shows this, but Python's stack does: who runs backward, and on which losses.
"""

from __future__ import annotations

import sys
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, NoReturn

from inbackward import _engine
from inbackward._names import name_of
from inbackward._torch_calls import has_marked_losses, is_marked_as_scaled

if TYPE_CHECKING:
    import torch

    from inbackward._protocols import Attached

_PIPELINES = "torch.distributed.pipelining"
_NODES_NEAR_A_LOSS = 256
_NO_TASK = -1  # outside of backward

_cleared = SimpleNamespace(task=None)
"""The engine's number of the last pass that no schedule runs: it has the same callers for all of its gradients."""


def may_run_pipelines() -> bool:
    """Whether there may be pipeline schedules at all."""
    return _PIPELINES in sys.modules


def refuse_pipeline(attached: Attached) -> None:
    """Refuses to step a parameter where a pipeline schedule runs.

    Raises:
        RuntimeError: It is refused.
    """
    task = _engine.current_task()
    if not may_run_pipelines() or task == _cleared.task:
        return
    if _engine.is_called_by(_PIPELINES):
        _refuse(
            attached,
            "A pipeline schedule runs backward for each micro-batch, and changes the gradients after the last. Have "
            "them add up, then step: with handle.accumulate(): schedule.step(...), followed by optimizer.step() and "
            "optimizer.zero_grad(), where handle = inbackward.step_in_backward(optimizer).",
        )
    if task != _NO_TASK:
        _cleared.task = task


def refuse_outside_backward(attached: Attached) -> NoReturn:
    """Refuses to step a parameter that FSDP2 reduces outside of backward, as it does at the end of a pipeline schedule.

    Raises:
        RuntimeError: It is refused.
    """
    refuse_pipeline(attached)
    _refuse(
        attached,
        "FSDP2 has reduced the gradient outside of backward, and it may be changed afterwards. Have gradients add up, "
        "then step: with handle.accumulate(): ..., followed by optimizer.step() and optimizer.zero_grad(), where "
        "handle = inbackward.step_in_backward(optimizer).",
    )


def refuse_caller(attached: Attached, *, unscales: bool) -> None:
    """Refuses to step a parameter in the backward of a pipeline schedule, or of a loss that a GradScaler has scaled.

    Args:
        attached: The parameter and its optimizers.
        unscales: Whether its gradient is unscaled before it is stepped.

    Raises:
        RuntimeError: It is refused.
    """
    refuse_pipeline(attached)
    if not unscales and is_scaled(_engine.losses()):
        _refuse(
            attached,
            "The loss was scaled by a GradScaler, and so are the gradients. Instead of scaler.scale(loss).backward() "
            "and scaler.step(optimizer), call inbackward.backward(loss, optimizer, scaler=scaler), where optimizer was "
            "handed over by inbackward.step_in_backward; or train in bfloat16 without a scaler.",
        )


def _refuse(attached: Attached, why: str) -> NoReturn:
    name = name_of(attached.param, attached.optimizers.values())
    msg = (
        f"{why} The optimizer of {name} has stepped nothing in this backward. Gradients may be there: call "
        f"optimizer.zero_grad() before you go on."
    )
    raise RuntimeError(msg)


def is_scaled(losses: list[torch.Tensor]) -> bool:
    """Whether a GradScaler has scaled one of the losses, or a part of it that is not far from it in the graph."""
    return has_marked_losses() and any(map(is_marked_as_scaled, islice(_engine.nodes_of(losses), _NODES_NEAR_A_LOSS)))
