"""Runs a plan by one method of training, event by event, and returns its trace."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from inbackward_conformance.plan.events import Attach
from inbackward_conformance.training.after_refusal import look_for_what_is_left
from inbackward_conformance.training.execute import execute
from inbackward_conformance.training.random_numbers import seed_random_numbers
from inbackward_conformance.training.recording import record
from inbackward_conformance.training.run import TrainingRun
from inbackward_conformance.training.trace import Trace, take_snapshot

if TYPE_CHECKING:
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
        attaching = len(run.plan.assignments_of(event))
        record(self.trace, name, lambda: execute(event, run), lambda: run.model, run.method, attaching=attaching)
        # What was attached before may step, and on ranks a peer that has not refused may wait.
        if attaching == 1 and not run.attached and not run.plan.ranks:
            look_for_what_is_left(self.trace, run.model, lambda: run.loss(run.next_batch()))


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
