"""Training by an implementation as source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan.literals import expression
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.call_templates import torch_call
from inbackward_conformance.repro.loops.loop import for_each, loading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inbackward_conformance.plan.events import Scheduler
    from inbackward_conformance.repro.call_templates import CallTemplates
    from inbackward_conformance.repro.loops.loop import AssignmentSource


class InBackwardSource:
    """Source of training by an implementation, whose optimizers step inside backward."""

    name = "InBackward"

    def __init__(self, templates: CallTemplates) -> None:
        self._templates = templates
        self._functional: AssignmentSource | None = None

    def attach(self, assignments: Sequence[AssignmentSource], *, more: bool = False) -> list[str]:
        """Return a call of `apply` for each assignment, or one call of the implementation's own `attach`."""
        names = ("optimizer_class", "params", "optimizer_kwargs", "register_hook")
        calls = [dict(zip(names, [*assigned[:3], str(assigned.hook)], strict=True)) for assigned in assignments]
        if self._templates.offers("attach"):
            tuples = ", ".join(f"({', '.join(arguments.values())})" for arguments in calls)
            return [self._templates.write("attach", module="model", assignments=f"[{tuples}]")]
        return [self._templates.write("apply", **arguments) for arguments in calls]

    def backward(self, loss: str, options: str = "") -> list[str]:
        """Return the call of backward, and the loop that frees gradients after a communication hook."""
        module = {"module": "model"} if self._templates.offers("backward") else {}
        lines = [self._templates.write("backward", options, loss=loss, **module)]
        if self._functional:
            lines += [f"for param in {self._functional.params}:", "    param.grad = None"]
        return lines

    def accumulating(self) -> list[str]:
        """Return the implementation's context manager."""
        return [self._templates.write("accumulate", module="model")]

    def run_pipeline(self, schedule: str, between: Sequence[str]) -> list[str]:
        """Return the call of the schedule; nothing comes between backward and step."""
        return [schedule]

    def accumulate_pipeline(self, schedule: str, between: Sequence[str]) -> list[str]:
        """Return the call of the schedule in the implementation's context manager, and the loops that step by hand."""
        (accumulating,) = self.accumulating()
        return [f"with {accumulating}:", f"    {schedule}", *between, *self.step_by_hand()]

    def clipped_backward(self, loss: str, max_norm: float | None, *, scaler: bool) -> list[str]:
        """Return the implementation's call."""
        options = f"max_norm={expression(max_norm)}, scaler={'scaler' if scaler else None}"
        return [self._templates.write("backward_clipped", options, loss=loss, module="model")]

    def scaled_backward(self, loss: str) -> list[str]:
        """Return the call of backward of the scaled loss, and the calls of `step` and `update` of the scaler."""
        lines = self.backward(f"scaler.scale({loss})")
        return [*lines, *for_each(self.optimizers(), "scaler.step(optimizer)"), "scaler.update()"]

    def average_by_hand(self, grad: str) -> list[str]:
        """Return nothing, since nothing comes between backward and step."""
        return []

    def declare_local(self, params: str) -> list[str]:
        """Return the implementation's call, if it has one."""
        return (
            [self._templates.write("declare_local", params=params)] if self._templates.offers("declare_local") else []
        )

    def step_by_hand(self) -> list[str]:
        """Return the loops that step the listed optimizers and free the gradients."""
        return for_each(self.optimizers(), "optimizer.step()", "optimizer.zero_grad()")

    def optimizers(self, module: str = "model") -> str:
        """Return a list of the attached optimizers, and of a functional one."""
        listed = self._templates.write("optimizers", module=module)
        return f"[*{listed}, functional]" if self._functional else listed

    def reattach(self, assignments: Sequence[AssignmentSource]) -> list[str]:
        """Return nothing, since the implementation's own call has sharded the model."""
        return []

    def wrap(self, call: str, module: str, options: str, *, plainly: bool = False) -> str:
        """Return the implementation's call that wraps or shards a module."""
        write = torch_call if plainly else self._templates.write
        return write(call, options, module=module)

    def schedule(self, module: str, scheduler: Scheduler) -> str:
        """Return a list of schedulers, one for each optimizer or by the implementation's own call."""
        if not self._templates.offers("schedule"):
            return f"[{sources.scheduler(scheduler)} for optimizer in {self.optimizers(module)}]"
        if scheduler.composed:
            build = f"lambda optimizer: {sources.scheduler(scheduler)}"
            return self._templates.write("schedule", module=module, scheduler_class=build)
        chosen, options = sources.scheduler_class(scheduler), sources.options(scheduler.options)
        return self._templates.write("schedule", f"**{options}", module=module, scheduler_class=chosen)

    def state_dict(self) -> str:
        """Return a list of state dicts, or the implementation's own call."""
        if self._templates.offers("state_dict"):
            return self._templates.write("state_dict", module="model")
        return f"[optimizer.state_dict() for optimizer in {self.optimizers()}]"

    def load_state_dict(self, state: str) -> list[str]:
        """Return the statements that load what `state_dict` returned."""
        if self._templates.offers("load_state_dict"):
            return [self._templates.write("load_state_dict", module="model", state=state)]
        return loading(self.optimizers(), state)

    def detach(self) -> list[str]:
        """Return the implementation's call."""
        return [self._templates.write("detach", module="model")]

    def hook_then_optimizer(
        self, wrapped: str, comm_hook: str, state: str, assignment: AssignmentSource, *, some: bool
    ) -> list[str]:
        """Return the statements that make a functional optimizer, and register it after the communication hook."""
        self._functional = assignment
        functional = self._templates.write(
            "functional_optimizer",
            f"**{assignment.optimizer_kwargs}",
            optimizer_class=assignment.optimizer_class,
            params=assignment.params if some else f"list({assignment.params})",
        )
        registered = self._templates.write(
            "hook_then_optimizer",
            ddp=wrapped,
            comm_hook=comm_hook,
            state=state,
            functional_optimizer="functional",
            params=assignment.params if some else "None",
        )
        return [f"functional = {functional}", registered]
