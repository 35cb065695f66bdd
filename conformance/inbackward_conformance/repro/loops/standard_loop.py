"""The standard loop as source: `loss.backward()`, `optimizer.step()`, `optimizer.zero_grad()`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from inbackward_conformance.plan.literals import expression
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.call_templates import torch_call
from inbackward_conformance.repro.failure import CannotWrite
from inbackward_conformance.repro.loops.loop import for_each, loading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inbackward_conformance.plan.events import Scheduler
    from inbackward_conformance.repro.call_templates import CallTemplates
    from inbackward_conformance.repro.loops.loop import AssignmentSource


class StandardLoopSource:
    """One ordinary optimizer for each assignment, in the list `optimizers` or, if stepped by hand, in `by_hand`.

    Args:
        alone: whether there is a single optimizer, which is the variable `optimizer` then.
    """

    name = "StandardLoop"
    """The name of its subfolder of checkpoints, as in `LoadSharded.of`."""

    def __init__(self, templates: CallTemplates, *, alone: bool) -> None:
        self._templates = templates
        self._alone = alone
        self._assigned: list[AssignmentSource] = []
        self._averaging: list[str] = []

    def attach(self, assignments: Sequence[AssignmentSource], *, more: bool = False) -> list[str]:
        """Return the statements that make the optimizers.

        Raises:
            CannotWrite: an optimizer in `by_hand` has to step after backward from now on.
        """
        by_hand_before = self._by_hand() if more else []
        self._assigned = [*(self._assigned if more else []), *assignments]
        if self._alone:
            return [f"optimizer = {self._make(assignment)}" for assignment in assignments]
        if any(assignment not in self._by_hand() for assignment in by_hand_before):
            raise CannotWrite("a later assignment hooks the parameters of an optimizer that was stepped by hand")
        lines = []
        for name, assigned in (("optimizers", self._stepped()), ("by_hand", self._by_hand())):
            new = [self._make(one) for one in assigned if any(one is assignment for assignment in assignments)]
            if new or (name == "optimizers" and not more):
                lines.append(f"{name} {'+=' if more else '='} [{', '.join(new)}]")
        return lines

    def backward(self, loss: str, options: str = "") -> list[str]:
        """Return the calls of `backward`, `step` and `zero_grad`.

        Raises:
            CannotWrite: a closure is needed that cannot be written.
        """
        lines = [torch_call("backward", options, loss=loss)]
        step = "optimizer.step()"
        if any(assignment.closure for assignment in self._stepped()):
            if not self._alone or re.search(r"\bloss\b", loss):
                raise CannotWrite("a closure for one of several optimizers, or for a loss of several statements")
            step = "optimizer.step(closure)"
            lines += ["def closure():", "    optimizer.zero_grad()", f"    loss = {loss}", "    loss.backward()"]
            lines.append("    return loss")
        lines += self._averaging
        if self._stepped():
            lines += self._each("optimizers", step, "optimizer.zero_grad()")
        return lines

    def accumulating(self) -> list[str]:
        """Return no context manager."""
        return []

    def run_pipeline(self, schedule: str, between: Sequence[str]) -> list[str]:
        """Return the call of the schedule, what comes `between`, and the calls of `step` and `zero_grad`."""
        stepped = self._each("optimizers", "optimizer.step()", "optimizer.zero_grad()") if self._stepped() else []
        return [schedule, *between, *stepped]

    accumulate_pipeline = run_pipeline

    def clipped_backward(self, loss: str, max_norm: float | None, *, scaler: bool) -> list[str]:
        """Return the calls of `backward`, `unscale_`, `clip_grad_norm_`, `step`, `update` and `zero_grad`."""
        lines = [f"scaler.scale({loss}).backward()" if scaler else f"{loss}.backward()"]
        if scaler and max_norm is not None:  # else `step` does it
            lines += self._each("optimizers", "scaler.unscale_(optimizer)")
        if max_norm is not None:
            held = f"param for optimizer in {self.optimizers()} for group in optimizer.param_groups"
            params = f"dict.fromkeys({held} for param in group['params'])"
            lines.append(f"torch.nn.utils.clip_grad_norm_({params}, {expression(max_norm)})")
        lines += self._each("optimizers", "scaler.step(optimizer)" if scaler else "optimizer.step()")
        lines += ["scaler.update()"] * scaler
        return [*lines, *self._each("optimizers", "optimizer.zero_grad()")]

    def scaled_backward(self, loss: str) -> list[str]:
        """Return the same, without clipping."""
        return self.clipped_backward(loss, None, scaler=True)

    def average_by_hand(self, grad: str) -> list[str]:
        """Return nothing, and add statements that average gradients to later calls of backward."""
        self._averaging = [
            "for param in model.parameters():",
            f'    dist.all_reduce({grad}, group=mesh["data"].get_group())',
            f'    {grad}.div_(mesh["data"].size())',
        ]
        return []

    def declare_local(self, params: str) -> list[str]:
        """Return nothing: an ordinary optimizer steps with the gradients that it finds."""
        return []

    def step_by_hand(self) -> list[str]:
        """Return the calls of `step` and `zero_grad` for the optimizers in `by_hand`."""
        return self._each("by_hand", "optimizer.step()", "optimizer.zero_grad()") if self._by_hand() else []

    def optimizers(self, module: str = "model") -> str:
        """Return a list of the optimizers, or of those with parameters of a submodule."""
        lists = "[optimizer]" if self._alone else "optimizers + by_hand" if self._by_hand() else "optimizers"
        if module == "model":
            return lists
        held = "param for group in each.param_groups for param in group['params']"
        return f"[each for each in {lists} if not set({module}.parameters()).isdisjoint({held})]"

    def reattach(self, assignments: Sequence[AssignmentSource]) -> list[str]:
        """Return the statements that make new optimizers."""
        return self.attach(assignments)

    def wrap(self, call: str, module: str, options: str, *, plainly: bool = False) -> str:
        """Return torch's own call."""
        return torch_call(call, options, module=module)

    def schedule(self, module: str, scheduler: Scheduler) -> str:
        """Return a list of schedulers, one for each optimizer."""
        return self._of_each(sources.scheduler(scheduler), module)

    def state_dict(self) -> str:
        """Return a list of state dicts."""
        return self._of_each("optimizer.state_dict()")

    def load_state_dict(self, state: str) -> list[str]:
        """Return the statements that load a list of state dicts."""
        return loading(self.optimizers(), state)

    def detach(self) -> list[str]:
        """Return the statements that clear the lists."""
        lists = ["optimizers", *["by_hand"] * bool(self._by_hand())]
        self._assigned = []
        return [f"{name} = []" for name in lists]

    def hook_then_optimizer(
        self, wrapped: str, comm_hook: str, state: str, assignment: AssignmentSource, *, some: bool
    ) -> list[str]:
        """Return the statements that register the hook, and make the optimizer as any other."""
        return [
            f"{wrapped}.register_comm_hook({state}, {comm_hook})",
            *self.attach([assignment], more=bool(self._assigned)),
        ]

    def _of_each(self, expression: str, module: str = "model") -> str:
        if self._alone and module == "model":
            return f"[{expression}]"
        return f"[{expression} for optimizer in {self.optimizers(module)}]"

    def _each(self, optimizers: str, *lines: str) -> list[str]:
        return list(lines) if self._alone else for_each(optimizers, *lines)

    def _hooked(self) -> frozenset[str]:
        return frozenset(name for assigned in self._assigned if assigned.hook for name in assigned.param_names)

    def _stepped(self) -> list[AssignmentSource]:
        return [assigned for assigned in self._assigned if assigned.param_names <= self._hooked()]

    def _by_hand(self) -> list[AssignmentSource]:
        return [assigned for assigned in self._assigned if not assigned.param_names <= self._hooked()]

    def _make(self, assignment: AssignmentSource) -> str:
        return self._templates.write(
            "standard_optimizer",
            optimizer_class=assignment.optimizer_class,
            params=assignment.params,
            optimizer_kwargs=assignment.optimizer_kwargs,
        )
