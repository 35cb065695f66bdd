"""Attachment, backward, and steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from inbackward_conformance.printable import Printable, expression

if TYPE_CHECKING:
    from inbackward_conformance.plan import Assignment, Plan
    from inbackward_conformance.repro.script import Script
    from inbackward_conformance.run import Run


@dataclass(frozen=True, repr=False)
class Attach(Printable):
    """Give the assignments of the plan to the parameters; every run begins so, after `Plan.before`.

    Once more it is for a model that is new, or detached.
    """

    more: ClassVar[bool] = False
    """Whether there are others already."""

    def assignments(self, plan: Plan) -> tuple[Assignment, ...]:
        """Return what is to be attached: all that the plan has."""
        return plan.assignments

    def happen(self, run: Run) -> None:
        """Attach in this order."""
        run.method.attach(run.model, [run.bind(assignment) for assignment in self.assignments(run.plan)])
        run.attached = True

    def spell(self, script: Script) -> None:
        """Attach in this order."""
        assignments = [script.assign(assignment) for assignment in self.assignments(script.plan)]
        script.loop.attach(script, assignments, more=self.more)
        script.attached = True


@dataclass(frozen=True, repr=False)
class Backward(Printable):
    """Forward and backward over a fresh batch; afterwards the optimizers have stepped and gradients are freed.

    Attributes:
        skip: branches that this forward leaves out.
        scale: what the loss is multiplied by: 0 gives zero gradients, `inf` and `nan` non-finite ones.
        inputs: the parameters that backward is confined to; empty: all that it reaches.
        create_graph: whether the gradients get a graph of their own.
    """

    skip: tuple[str, ...] = ()
    scale: float = 1.0
    inputs: tuple[str, ...] = ()
    create_graph: bool = False

    def happen(self, run: Run) -> None:
        """Train for one step."""
        batch = run.next_batch()
        kwargs: dict[str, Any] = {"create_graph": True} if self.create_graph else {}
        if self.inputs:
            kwargs["inputs"] = [run.model.get_parameter(name) for name in self.inputs]
        run.method.backward(run.model, lambda: run.loss(batch, skip=self.skip) * self.scale, **kwargs)

    def spell(self, script: Script) -> None:
        """Train for one step."""
        script.draw_batch()
        loss = script.loss(self.skip)
        if self.scale != 1.0:
            loss = f"({loss} * {expression(self.scale)})"
        options = ["create_graph=True"] * self.create_graph
        options += [f"inputs={script.parameters(self.inputs)}"] * bool(self.inputs)
        script.loop.backward(script, loss, ", ".join(options))


@dataclass(frozen=True, repr=False)
class Accumulate(Printable):
    """Forward and backward without a step: gradients are left behind. Belongs to `Plan.before`."""

    skip: tuple[str, ...] = ()

    def happen(self, run: Run) -> None:
        """Leave gradients on the parameters."""
        run.loss(run.next_batch(), skip=self.skip).backward()

    def spell(self, script: Script) -> None:
        """Leave gradients on the parameters."""
        script.draw_batch()
        script.add(f"{script.loss(self.skip)}.backward()")


@dataclass(frozen=True, repr=False)
class StepByHand(Printable):
    """Step the listed optimizers by hand and free the gradients, as one does without hooks."""

    def happen(self, run: Run) -> None:
        """Step, then zero_grad."""
        run.method.step_by_hand(run.model)

    def spell(self, script: Script) -> None:
        """Step, then zero_grad."""
        script.loop.step_by_hand(script)


@dataclass(frozen=True, repr=False)
class StepAnother(Printable):
    """Step another, ordinary optimizer over all parameters: it finds no gradient to act on."""

    def happen(self, run: Run) -> None:
        """Step a plain SGD that nothing else knows of."""
        run.another_optimizer().step()

    def spell(self, script: Script) -> None:
        """Step a plain SGD."""
        script.add(f"{script.another_optimizer()}.step()")
