"""Training by an implementation as source: backward is all there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.repro import sources
from inbackward_conformance.repro.call_templates import torch_call
from inbackward_conformance.repro.loops.loop import loading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inbackward_conformance.plan.events import Scheduler
    from inbackward_conformance.repro.call_templates import CallTemplates
    from inbackward_conformance.repro.loops.loop import AssignmentSource


class InBackwardSource:
    """Training by the calls of an implementation."""

    name = "InBackward"

    def __init__(self, templates: CallTemplates) -> None:
        self._templates = templates
        self._behind_hook: AssignmentSource | None = None

    def attach(self, assignments: Sequence[AssignmentSource], *, more: bool = False) -> list[str]:
        """Attach one after the other, or all at once by the implementation's own call."""
        names = ("optimizer_class", "params", "optimizer_kwargs", "register_hook")
        rows = [dict(zip(names, [*made[:3], str(made.hook)], strict=True)) for made in assignments]
        if self._templates.offers("attach"):
            together = ", ".join(f"({', '.join(row.values())})" for row in rows)
            return [self._templates.write("attach", module="model", assignments=f"[{together}]")]
        return [self._templates.write("apply", **row) for row in rows]

    def backward(self, loss: str, options: str = "") -> list[str]:
        """Return one line; what stepped behind a communication hook leaves its gradients to be freed."""
        module = {"module": "model"} if self._templates.offers("backward") else {}
        lines = [self._templates.write("backward", options, loss=loss, **module)]
        if self._behind_hook:
            lines += [f"for param in {self._behind_hook.params}:", "    param.grad = None"]
        return lines

    def step_by_hand(self) -> list[str]:
        """Step all that is listed."""
        steps = ("optimizer.step()", "optimizer.zero_grad()")
        return [part for line in steps for part in (f"for optimizer in {self.optimizers()}:", f"    {line}")]

    def optimizers(self, module: str = "model") -> str:
        """Ask the implementation."""
        listed = self._templates.write("optimizers", module=module)
        return f"[*{listed}, functional]" if self._behind_hook else listed

    def reattach(self, assignments: Sequence[AssignmentSource]) -> list[str]:
        """Leave it to the implementation, whose call has sharded the model."""
        return []

    def wrap(self, call: str, module: str, options: str, *, plainly: bool = False) -> str:
        """Wrap by the implementation."""
        return (
            torch_call(call, options, module=module) if plainly else self._templates.write(call, options, module=module)
        )

    def schedule(self, module: str, scheduler: Scheduler) -> str:
        """Start one for each optimizer, or what the implementation makes of it."""
        if not self._templates.offers("schedule"):
            return f"[{sources.scheduler(scheduler)} for optimizer in {self.optimizers(module)}]"
        if scheduler.composed:
            build = f"lambda optimizer: {sources.scheduler(scheduler)}"
            return self._templates.write("schedule", module=module, scheduler_class=build)
        chosen, options = sources.scheduler_class(scheduler), sources.options(scheduler.options)
        return self._templates.write("schedule", f"**{options}", module=module, scheduler_class=chosen)

    def state_dict(self) -> str:
        """Return the states of what is listed, or by the implementation's own call."""
        if self._templates.offers("state_dict"):
            return self._templates.write("state_dict", module="model")
        return f"[optimizer.state_dict() for optimizer in {self.optimizers()}]"

    def load_state_dict(self, state: str) -> list[str]:
        """Load them."""
        if self._templates.offers("load_state_dict"):
            return [self._templates.write("load_state_dict", module="model", state=state)]
        return loading(self.optimizers(), state)

    def detach(self) -> list[str]:
        """Detach by the implementation."""
        return [self._templates.write("detach", module="model")]

    def hook_then_optimizer(
        self, wrapped: str, comm_hook: str, state: str, made: AssignmentSource, *, some: bool
    ) -> list[str]:
        """Make a functional optimizer, and let the implementation register both."""
        self._behind_hook = made
        functional = self._templates.write(
            "functional_optimizer",
            f"**{made.optimizer_kwargs}",
            optimizer_class=made.optimizer_class,
            params=made.params if some else f"list({made.params})",
        )
        registered = self._templates.write(
            "hook_then_optimizer",
            ddp=wrapped,
            comm_hook=comm_hook,
            state=state,
            functional_optimizer="functional",
            params=made.params if some else "None",
        )
        return [f"functional = {functional}", registered]
