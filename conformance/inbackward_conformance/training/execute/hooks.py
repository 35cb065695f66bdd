"""Executes the events of `plan.events.hooks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.catalogue.user_hooks import clip, clipped, drop
from inbackward_conformance.plan import events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.ClipGradients)
def _(event: events.ClipGradients, run: TrainingRun) -> None:
    hook = clipped if event.by == "register_hook" else clip
    for param in run.model.parameters():
        getattr(param, event.by)(hook)


@execute.register(events.DropGradients)
def _(event: events.DropGradients, run: TrainingRun) -> None:
    for name in event.params:
        run.model.get_parameter(name).register_post_accumulate_grad_hook(drop)
