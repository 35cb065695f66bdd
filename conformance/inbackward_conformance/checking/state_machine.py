"""The rules by which Hypothesis does things to a live model: what comes next is chosen when all before has happened."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from inbackward_conformance.checking.strategies.plans import beginning, plan_of
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
    """A model in training by both ways, which are compared after each rule.

    Attributes:
        situation: where it stands.
    """

    situation: Situation
    lockstep: Lockstep

    def __init__(self, check: Check, judged: Callable[[Plan], AbstractContextManager[None]]) -> None:
        super().__init__()
        self._check = check
        self._handle_errors = judged
        self._over = False

    @initialize(data=st.data())
    def attach(self, data: Any) -> None:
        """Build both models and attach."""
        self.situation = beginning(data.draw)
        self.lockstep = self._check.lockstep(plan_of(self.situation, ()))
        self._let(self.lockstep.attach)

    @rule(data=st.data())
    def backward(self, data: Any) -> None:
        """Train."""
        self._draw(EventKind.BACKWARD, data)

    @rule(data=st.data())
    def two_losses(self, data: Any) -> None:
        """Train on two graphs that are there at the same time."""
        self._draw(EventKind.TWO_LOSSES, data)

    @rule(data=st.data())
    def option(self, data: Any) -> None:
        """Change an option."""
        self._draw(EventKind.OPTION, data)

    @rule(data=st.data())
    @precondition(_possible(EventKind.CHECKPOINT))
    def checkpoint(self, data: Any) -> None:
        """Save or load."""
        self._draw(EventKind.CHECKPOINT, data)

    @rule(data=st.data())
    @precondition(_possible(EventKind.HOOK))
    def hook(self, data: Any) -> None:
        """Hang a user's hooks on parameters."""
        self._draw(EventKind.HOOK, data)

    @rule(data=st.data())
    @precondition(_possible(EventKind.FREEZING))
    def freezing(self, data: Any) -> None:
        """Freeze or thaw."""
        self._draw(EventKind.FREEZING, data)

    @rule(data=st.data())
    @precondition(_possible(EventKind.ATTACHMENT))
    def attachment(self, data: Any) -> None:
        """Attach once more: further optimizers, a copy, or what was detached."""
        self._draw(EventKind.ATTACHMENT, data)

    @rule(data=st.data())
    @precondition(_possible(EventKind.SURGERY))
    def surgery(self, data: Any) -> None:
        """Give the model other parameters, or other places for them."""
        self._draw(EventKind.SURGERY, data)

    def _draw(self, kind: EventKind, data: Any) -> None:
        events = self.situation.draw(kind, data.draw)
        for event in events:
            self._let(partial(self.lockstep.execute, event))
        self.situation = self.situation.after(events)

    def _let(self, happen: Callable[[], None]) -> None:
        """Let something happen, as long as all before was offered."""
        if self._over:
            return
        with self._handle_errors(self.lockstep.plan):
            try:
                happen()
            except NotOffered:
                self._over = True
                raise
