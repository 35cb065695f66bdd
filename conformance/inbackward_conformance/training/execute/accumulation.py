"""Executes the events of `plan.events.accumulation`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from inbackward_conformance.catalogue.user_hooks import HookError, fail
from inbackward_conformance.plan import events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.MicroBatch)
def _(event: events.MicroBatch, run: TrainingRun) -> None:
    batch = run.next_batch()
    wrapper: Any = run.wrapper
    handle = run.model.get_parameter(event.error_in).register_hook(fail) if event.error_in else None
    try:
        with wrapper.no_sync() if event.unsynchronised else nullcontext():
            run.method.micro_batch(run.model, lambda: run.loss(batch, skip=event.skip))
    except HookError:
        pass
    finally:
        if handle:
            handle.remove()
