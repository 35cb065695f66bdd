"""Runs a plan by one method of training, event by event, and returns its trace."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from inbackward_conformance.outcome import BrokenPromise, NotOffered, NotRun
from inbackward_conformance.plan.events import Attach
from inbackward_conformance.raised_error import is_observation
from inbackward_conformance.training.classify_error import printable_errors
from inbackward_conformance.training.execute import execute
from inbackward_conformance.training.random_numbers import seed_random_numbers
from inbackward_conformance.training.run import TrainingRun
from inbackward_conformance.training.trace import Raised, Trace, take_snapshot

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from inbackward_conformance.plan import Plan
    from inbackward_conformance.plan.events import Event
    from inbackward_conformance.training.in_backward import InBackward
    from inbackward_conformance.training.standard_loop import StandardLoop


class TracedRun:
    """A training run, with a snapshot after each event.

    Attributes:
        run: the training run.
        trace: the trace so far.
    """

    def __init__(self, plan: Plan, method: StandardLoop | InBackward, device: str, rank: int = 0) -> None:
        self.run = TrainingRun(plan, method, device, rank)
        self.trace = Trace(start=take_snapshot("the start", self.run.model, []))

    def execute(self, event: Event) -> None:
        """Execute one more event and add a snapshot; an error of the event is added to the trace, and ends the run."""
        run = self.run
        name = f"event {len(self.trace.snapshots)}, {event!r}"
        try:
            execute(event, run)
        except (BrokenPromise, NotOffered, NotRun):
            raise
        except BaseException as error:
            if not is_observation(error):
                raise
            self.trace.raised = Raised.observe(error, name, attaching=len(run.plan.assignments_of(event)))
        with printable_errors():
            listed = _listed(run.method, run.model)
            self.trace.snapshots.append(take_snapshot(name, run.model, listed, run.method.state_of))


def train(plan: Plan, method: StandardLoop | InBackward, device: str = "cpu", rank: int = 0) -> Trace:
    """Run `plan` by `method` and return the trace, up to the first error.

    Every run of a plan starts with the same global random state, which is restored afterwards.
    """
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seed_random_numbers(plan.seed, device)
        traced = TracedRun(plan, method, device, rank)
        for event in (*plan.before, Attach(), *plan.events):
            traced.execute(event)
            if traced.trace.raised:
                break
    return traced.trace


def _listed(method: StandardLoop | InBackward, model: nn.Module) -> list[Optimizer] | None:
    try:
        return method.optimizers(model)
    except NotOffered:
        return None
