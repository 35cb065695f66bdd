"""A Hypothesis state machine that trains a model, and draws each event after the one before has run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from inbackward_conformance.checking.strategies.next_events import next_events
from inbackward_conformance.checking.strategies.plans import initial_situation, plan_of
from inbackward_conformance.checking.strategies.situation import EventKind, Situation
from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from inbackward_conformance.checking.check import Check
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.training.lockstep import Lockstep


def _possible(kind: EventKind) -> Callable[[TrainingStateMachine], bool]:
    return lambda machine: bool(machine.situation.possible([kind]))


class TrainingStateMachine(RuleBasedStateMachine):
    """Trains a model by both methods, and compares them after each rule.

    Attributes:
        situation: the state of the run, for drawing the next event.
    """

    situation: Situation
    lockstep: Lockstep

    def __init__(self, check: Check, handle_errors: Callable[[Plan], AbstractContextManager[None]]) -> None:
        super().__init__()
        self._check = check
        self._handle_errors = handle_errors
        self._stopped = False

    @initialize(data=st.data())
    def attach(self, data: Any) -> None:
        """Build both models, and attach."""
        self.situation = initial_situation(data.draw)
        self.lockstep = self._check.lockstep(plan_of(self.situation, ()))
        self._execute(self.lockstep.attach)

    @rule(data=st.data())
    def backward(self, data: Any) -> None:
        """Run backward."""
        self._draw(EventKind.BACKWARD, data)

    @rule(data=st.data())
    def two_losses(self, data: Any) -> None:
        """Run two forwards, then backward through each."""
        self._draw(EventKind.TWO_LOSSES, data)

    @rule(data=st.data())
    def option(self, data: Any) -> None:
        """Change an option of optimizers."""
        self._draw(EventKind.OPTION, data)

    @rule(data=st.data())
    @precondition(_possible(EventKind.CHECKPOINT))
    def checkpoint(self, data: Any) -> None:
        """Save or load a checkpoint."""
        self._draw(EventKind.CHECKPOINT, data)

    @rule(data=st.data())
    @precondition(_possible(EventKind.HOOK))
    def hook(self, data: Any) -> None:
        """Register a user's hooks on parameters."""
        self._draw(EventKind.HOOK, data)

    @rule(data=st.data())
    @precondition(_possible(EventKind.FREEZING))
    def freezing(self, data: Any) -> None:
        """Freeze or thaw parameters."""
        self._draw(EventKind.FREEZING, data)

    @rule(data=st.data())
    @precondition(_possible(EventKind.ATTACHMENT))
    def attachment(self, data: Any) -> None:
        """Attach again: more optimizers, a copy, or a detached model."""
        self._draw(EventKind.ATTACHMENT, data)

    @rule(data=st.data())
    @precondition(_possible(EventKind.SURGERY))
    def surgery(self, data: Any) -> None:
        """Replace or swap parameters of the model."""
        self._draw(EventKind.SURGERY, data)

    def _draw(self, kind: EventKind, data: Any) -> None:
        events = next_events(data.draw, self.situation, kind)
        for event in events:
            self._execute(partial(self.lockstep.execute, event))
        self.situation = self.situation.after(events)

    def _execute(self, call: Callable[[], None]) -> None:
        """Call `call`, unless an earlier call was not offered."""
        if self._stopped:
            return
        with self._handle_errors(self.lockstep.plan):
            try:
                call()
            except NotOffered:
                self._stopped = True
                raise
