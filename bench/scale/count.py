"""Counts one step of training."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import AdamW
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bench.scale.arrangements import ARRANGEMENTS, set_up_of
from bench.scale.gradients import Gradients
from bench.scale.group import rank_zero_of
from bench.scale.results import MAP, Count
from inbackward_conformance.tensors import local

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor
    from torch.optim import Optimizer

    from bench.models import Chain
    from bench.scale.results import Point

STEPS_BEFORE = 2  # after the first, DDP divides its parameters among buckets anew


def count(point: Point, model: Chain) -> Count:
    """Train a model for some steps, and count what the last one does."""
    arrangement = ARRANGEMENTS[point.arrangement]
    batch = torch.ones(1, point.width)
    with ExitStack() as until_counted:
        group = until_counted.enter_context(rank_zero_of(point.ranks)) if arrangement.has_ranks else None
        module = arrangement.wrap(model, point)
        step, optimizers = set_up_of(point)(module, AdamW, {"lr": 1e-6})
        gradients = Gradients(module)
        for _ in range(STEPS_BEFORE):
            step(batch)
        counter = _Counter(Count(point), gradients)
        until_counted.callback(register_optimizer_step_pre_hook(counter.before_step).remove)
        if group is not None:
            group.listen = counter.hear
        gradients.peak = 0
        step(batch)
        found = counter.found
        found.gradients = gradients.peak
        found.parameters = _bytes(module.parameters())
        found.state = _bytes(
            value
            for optimizer in optimizers
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        )
    return found


class _Counter:
    """Counts what happens from now on."""

    def __init__(self, found: Count, gradients: Gradients) -> None:
        self.found = found
        self._gradients = gradients

    def hear(self, kind: str, given: Tensor, result: Tensor) -> None:
        """Count a collective."""
        if not given.is_floating_point():
            kind = MAP
        elif kind != "all_gather":  # that one gathers parameters
            self._gradients.see(given, result)
        self.found.collectives[kind] = self.found.collectives.get(kind, 0) + 1
        self.found.sent[kind] = self.found.sent.get(kind, 0) + given.nbytes

    def before_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Count a call of the optimizer."""
        listed = [param for group in optimizer.param_groups for param in group["params"]]
        gradients = [param.grad for param in listed if param.grad is not None]
        self.found.steps.append(len(gradients))
        self._gradients.see(*gradients)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(local(tensor).nbytes for tensor in tensors)
