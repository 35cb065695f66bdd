"""Executes the events of `plan.events.hooks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.catalogue.user_hooks import clip, clipped, drop
from inbackward_conformance.plan.events import ClipGradients, DropGradients
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from inbackward_conformance.training.run import TrainingRun


@execute.register(ClipGradients)
def _(event: ClipGradients, run: TrainingRun) -> None:
    hook = clipped if event.by == "register_hook" else clip
    for param in run.model.parameters():
        getattr(param, event.by)(hook)


@execute.register(DropGradients)
def _(event: DropGradients, run: TrainingRun) -> None:
    for name in event.params:
        run.model.get_parameter(name).register_post_accumulate_grad_hook(drop)
