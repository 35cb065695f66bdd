"""What happens around attachment: training before it, failures of it, and more of it later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from inbackward_conformance.events.backward import Attach
from inbackward_conformance.outcome import NotOffered
from inbackward_conformance.printable import Printable

if TYPE_CHECKING:
    from inbackward_conformance.plan import Assignment, Plan
    from inbackward_conformance.repro.script import Script
    from inbackward_conformance.run import Run


@dataclass(frozen=True, repr=False)
class AttachMore(Attach, Printable):
    """Make one more assignment, in the middle of training."""

    assignment: Assignment
    more: ClassVar[bool] = True

    def assignments(self, plan: Plan) -> tuple[Assignment, ...]:
        """Return the one."""
        return (self.assignment,)


@dataclass(frozen=True, repr=False)
class FailToAttach(Printable):
    """Make an assignment that raises in the standard loop, and go on. Belongs to `Plan.before`."""

    assignment: Assignment

    def happen(self, run: Run) -> None:
        """Drop the error."""
        try:
            run.method.attach(run.model, [run.bind(self.assignment)])
        except NotOffered:
            raise
        except Exception:  # noqa: BLE001, S110 (the next events tell whether it left something behind)
            pass

    def spell(self, script: Script) -> None:
        """Drop the error."""
        with script.block("try:"):
            script.loop.attach(script, [script.assign(self.assignment)])
        script.add("except Exception:", "    pass")


@dataclass(frozen=True, repr=False)
class TrainOrdinarily(Printable):
    """Train for one step by another, ordinary optimizer."""

    def happen(self, run: Run) -> None:
        """Backward, step, zero_grad; it is the same for all methods."""
        optimizer = run.another_optimizer()
        run.loss(run.next_batch()).backward()
        optimizer.step()
        optimizer.zero_grad()

    def spell(self, script: Script) -> None:
        """Train by an SGD of its own."""
        script.draw_batch()
        script.add(f"another = {script.another_optimizer()}", f"{script.loss()}.backward()")
        script.add("another.step()", "another.zero_grad()")


@dataclass(frozen=True, repr=False)
class Grow(Printable):
    """Let the model build another layer, with parameters of its own: `model.grow()`."""

    def happen(self, run: Run) -> None:
        """Attach nothing to it."""
        run.model.grow()  # type: ignore[operator]
        run.model.to(run.device)

    def spell(self, script: Script) -> None:
        """Call it."""
        script.add("model.grow()")
