"""The standard loop as source: `loss.backward()`, `optimizer.step()`, `optimizer.zero_grad()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.repro import sources
from inbackward_conformance.repro.call_templates import CannotWrite, torch_call
from inbackward_conformance.repro.loops.loop import loading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inbackward_conformance.plan.events import Scheduler
    from inbackward_conformance.repro.call_templates import CallTemplates
    from inbackward_conformance.repro.loops.loop import AssignmentSource


class StandardLoopSource:
    """One ordinary optimizer for each assignment, in the list `optimizers` or, stepped by hand, in `by_hand`.

    Args:
        alone: whether there is never more than one optimizer, which then is a variable `optimizer`.
    """

    name = "StandardLoop"
    """What tells its files from those of the other loop; `LoadSharded.of` names it."""

    def __init__(self, templates: CallTemplates, *, alone: bool) -> None:
        self._templates = templates
        self._alone = alone
        self._made: list[AssignmentSource] = []

    def attach(self, assignments: Sequence[AssignmentSource], *, more: bool = False) -> list[str]:
        """Make the optimizers: those that step after backward, and those that are stepped by hand.

        Raises:
            CannotWrite: an optimizer that was stepped by hand has to step after backward from here on.
        """
        by_hand_before = self._by_hand() if more else []
        self._made = [*(self._made if more else []), *assignments]
        if self._alone:
            return [f"optimizer = {self._make(made)}" for made in assignments]
        if any(made not in self._by_hand() for made in by_hand_before):
            raise CannotWrite("a later assignment hooks the parameters of an optimizer that was stepped by hand")
        lines = []
        for name, chosen in (("optimizers", self._stepped()), ("by_hand", self._by_hand())):
            made = [self._make(one) for one in chosen if any(one is new for new in assignments)]
            if made or (name == "optimizers" and not more):
                lines.append(f"{name} {'+=' if more else '='} [{', '.join(made)}]")
        return lines

    def backward(self, loss: str, options: str = "") -> list[str]:
        """Return what a textbook has."""
        lines = [torch_call("backward", options, loss=loss)]
        step = "optimizer.step()"
        if any(made.closure for made in self._stepped()):
            step = "optimizer.step(closure)"
            lines += ["def closure():", "    model.zero_grad()", f"    loss = {loss}", "    loss.backward()"]
            lines.append("    return loss")
        if self._stepped():
            lines += self._each("optimizers", step, "optimizer.zero_grad()")
        return lines

    def step_by_hand(self) -> list[str]:
        """Step, then zero_grad."""
        return self._each("by_hand", "optimizer.step()", "optimizer.zero_grad()")

    def optimizers(self, module: str = "model") -> str:
        """Return the list, or those that hold parameters of a part of the model."""
        if self._alone:
            return "[optimizer]"
        made = " + ".join(name for name in ("optimizers", "by_hand") if name != "by_hand" or self._by_hand())
        if module == "model":
            return made
        params = f"set({module}.parameters())"
        return f"[each for each in {made} if not {params}.isdisjoint(each.param_groups[0]['params'])]"

    def reattach(self, assignments: Sequence[AssignmentSource]) -> list[str]:
        """Make the optimizers anew."""
        return self.attach(assignments)

    def wrap(self, call: str, module: str, options: str, *, plainly: bool = False) -> str:
        """Wrap by torch's own call."""
        return torch_call(call, options, module=module)

    def schedule(self, module: str, scheduler: Scheduler) -> str:
        """Start one for each optimizer."""
        return self._of_each(sources.scheduler(scheduler), module)

    def state_dict(self) -> str:
        """Return those of the optimizers."""
        return self._of_each("optimizer.state_dict()")

    def load_state_dict(self, state: str) -> list[str]:
        """Load into the optimizers."""
        return loading(self.optimizers(), state)

    def detach(self) -> list[str]:
        """Forget the optimizers."""
        lists = ["optimizers", *["by_hand"] * bool(self._by_hand())]
        self._made = []
        return [f"{name} = []" for name in lists]

    def hook_then_optimizer(
        self, wrapped: str, comm_hook: str, state: str, made: AssignmentSource, *, some: bool
    ) -> list[str]:
        """Register the hook; the optimizer is one like any other."""
        return [f"{wrapped}.register_comm_hook({state}, {comm_hook})", *self.attach([made])]

    def _of_each(self, expression: str, module: str = "model") -> str:
        return f"[{expression}]" if self._alone else f"[{expression} for optimizer in {self.optimizers(module)}]"

    def _each(self, optimizers: str, *lines: str) -> list[str]:
        if self._alone:
            return list(lines)
        return [part for line in lines for part in (f"for optimizer in {optimizers}:", f"    {line}")]

    def _hooked(self) -> frozenset[str]:
        return frozenset(name for made in self._made if made.hook for name in made.held)

    def _stepped(self) -> list[AssignmentSource]:
        return [made for made in self._made if made.held <= self._hooked()]

    def _by_hand(self) -> list[AssignmentSource]:
        return [made for made in self._made if not made.held <= self._hooked()]

    def _make(self, made: AssignmentSource) -> str:
        return self._templates.write(
            "standard_optimizer",
            optimizer_class=made.optimizer_class,
            params=made.params,
            optimizer_kwargs=made.optimizer_kwargs,
        )
