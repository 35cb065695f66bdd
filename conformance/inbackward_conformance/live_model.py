"""The rules by which Hypothesis does things to a live model: what comes next is chosen when all before has happened."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from inbackward_conformance.outcome import NotOffered
from inbackward_conformance.strategies.plans import beginning, plan_of
from inbackward_conformance.strategies.situation import Kind, Situation

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from inbackward_conformance.check import Check
    from inbackward_conformance.live import Live
    from inbackward_conformance.plan import Plan


def _possible(kind: Kind) -> Callable[[LiveModel], bool]:
    return lambda machine: bool(machine.situation.possible([kind]))


class LiveModel(RuleBasedStateMachine):
    """A model in training by both ways, which are compared after each rule.

    Attributes:
        situation: where it stands.
    """

    situation: Situation
    live: Live

    def __init__(self, check: Check, judged: Callable[[Plan], AbstractContextManager[None]]) -> None:
        super().__init__()
        self._check = check
        self._judged = judged
        self._over = False

    @initialize(data=st.data())
    def attach(self, data: Any) -> None:
        """Build both models and attach."""
        self.situation = beginning(data.draw)
        self.live = self._check.live(plan_of(self.situation, ()))
        self._let(self.live.attach)

    @rule(data=st.data())
    def backward(self, data: Any) -> None:
        """Train."""
        self._draw(Kind.BACKWARD, data)

    @rule(data=st.data())
    def two_losses(self, data: Any) -> None:
        """Train on two graphs that are there at the same time."""
        self._draw(Kind.TWO_LOSSES, data)

    @rule(data=st.data())
    def option(self, data: Any) -> None:
        """Change an option."""
        self._draw(Kind.OPTION, data)

    @rule(data=st.data())
    @precondition(_possible(Kind.CHECKPOINT))
    def checkpoint(self, data: Any) -> None:
        """Save or load."""
        self._draw(Kind.CHECKPOINT, data)

    @rule(data=st.data())
    @precondition(_possible(Kind.HOOK))
    def hook(self, data: Any) -> None:
        """Hang a user's hooks on parameters."""
        self._draw(Kind.HOOK, data)

    @rule(data=st.data())
    @precondition(_possible(Kind.FREEZING))
    def freezing(self, data: Any) -> None:
        """Freeze or thaw."""
        self._draw(Kind.FREEZING, data)

    @rule(data=st.data())
    @precondition(_possible(Kind.ATTACHMENT))
    def attachment(self, data: Any) -> None:
        """Attach once more: further optimizers, a copy, or what was detached."""
        self._draw(Kind.ATTACHMENT, data)

    @rule(data=st.data())
    @precondition(_possible(Kind.SURGERY))
    def surgery(self, data: Any) -> None:
        """Give the model other parameters, or other places for them."""
        self._draw(Kind.SURGERY, data)

    def _draw(self, kind: Kind, data: Any) -> None:
        events = self.situation.draw(kind, data.draw)
        for event in events:
            self._let(partial(self.live.let_happen, event))
        self.situation = self.situation.after(events)

    def _let(self, happen: Callable[[], None]) -> None:
        """Let something happen, as long as all before was offered."""
        if self._over:
            return
        with self._judged(self.live.plan):
            try:
                happen()
            except NotOffered:
                self._over = True
                raise
