"""Executes the events of `plan.events.clipping`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.catalogue.user_hooks import overflow
from inbackward_conformance.plan import events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.ClippedBackward)
def _(event: events.ClippedBackward, run: TrainingRun) -> None:
    handle = run.model.get_parameter(event.overflow_in).register_hook(overflow) if event.overflow_in else None
    loss = run.loss(run.next_batch(), skip=event.skip) * event.scale
    run.method.clipped_backward(run.model, loss, event.max_norm, run.scaler if event.scaler else None)
    if handle:
        handle.remove()


@execute.register(events.ScaledBackward)
def _(_: events.ScaledBackward, run: TrainingRun) -> None:
    run.method.scaled_backward(run.model, run.loss(run.next_batch()), run.scaler)
