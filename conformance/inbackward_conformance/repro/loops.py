"""The two ways to train, as source: the standard loop, and an implementation.

They mirror `inbackward_conformance.standard_loop` and `inbackward_conformance.in_backward`, call by call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from inbackward_conformance.repro.spelling import DEFAULTS, plainly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inbackward_conformance.events import Scheduler
    from inbackward_conformance.repro.script import Script
    from inbackward_conformance.repro.spelling import Spelling


class Assigned(NamedTuple):
    """The arguments of `apply` as source, and what the standard loop has to know of them.

    Attributes:
        hook: whether the optimizer steps inside backward.
        held: the names of the parameters, a shared one under its first.
        closure: whether `step` needs one.
    """

    optimizer_class: str
    params: str
    optimizer_kwargs: str
    hook: bool
    held: frozenset[str]
    closure: bool


class Loop(Protocol):
    """A way to train; every call adds lines to the script, or returns an expression."""

    def attach(self, script: Script, assignments: Sequence[Assigned], *, more: bool = False) -> None:
        """Give optimizers to parameters; `more`: beside those that there are."""

    def backward(self, script: Script, loss: str, options: str = "") -> None:
        """Run backward, and step."""

    def step_by_hand(self, script: Script) -> None:
        """Step what was attached without a hook."""

    def optimizers(self, module: str = "model") -> str:
        """Return the list of optimizers."""

    def reattach(self, script: Script, assignments: Sequence[Assigned]) -> None:
        """Follow the model to the new Parameter objects of sharding."""

    def wrap(self, call: str, module: str, options: str, *, plainly: bool = False) -> str:
        """Wrap a module: `wrap_ddp`, `fully_shard` or `wrap_fsdp`; `plainly`: by torch's own call in any case."""

    def schedule(self, script: Script, module: str, scheduler: Scheduler) -> str:
        """Return the list of started schedulers."""

    def state_dict(self) -> str:
        """Return the states of all optimizers."""

    def load_state_dict(self, script: Script, state: str) -> None:
        """Load them."""

    def detach(self, script: Script) -> None:
        """Make an ordinary model of it again."""

    def hook_then_optimizer(self, script: Script, comm_hook: str, state: str, made: Assigned, *, some: bool) -> None:
        """Register a communication hook, with an optimizer to step behind it; `some`: not for all parameters."""


class StandardLoop:
    """`loss.backward()`, `optimizer.step()`, `optimizer.zero_grad()`.

    Args:
        alone: whether there is never more than one optimizer, which then needs no list.
    """

    def __init__(self, spelling: Spelling, *, alone: bool) -> None:
        self._spelling = spelling
        self._alone = alone
        self._made: list[Assigned] = []

    def attach(self, script: Script, assignments: Sequence[Assigned], *, more: bool = False) -> None:
        """Make the optimizers: those that step after backward, and those that are stepped by hand."""
        self._made = [*(self._made if more else []), *assignments]
        if self._alone:
            script.add(*(f"optimizer = {self._make(made)}" for made in assignments))
            return
        for name, found in (("optimizers", self._stepped()), ("by_hand", self._by_hand())):
            made = [self._make(one) for one in found if any(one is new for new in assignments)]
            if made or (name == "optimizers" and not more):
                script.add(f"{name} {'+=' if more else '='} [{', '.join(made)}]")

    def backward(self, script: Script, loss: str, options: str = "") -> None:
        """Write what a textbook has."""
        script.add(_plain("backward", options, loss=loss))
        step = "optimizer.step()"
        if any(made.closure for made in self._stepped()):
            step = "optimizer.step(closure)"
            script.add("def closure():", "    model.zero_grad()", f"    loss = {loss}", "    loss.backward()")
            script.add("    return loss")
        if self._stepped():
            self._each(script, self.optimizers(), step, "optimizer.zero_grad()")

    def step_by_hand(self, script: Script) -> None:
        """Step, then zero_grad."""
        self._each(script, "by_hand", "optimizer.step()", "optimizer.zero_grad()")

    def optimizers(self, module: str = "model") -> str:
        """Return the list, or those that hold parameters of a part of the model."""
        if self._alone:
            return "[optimizer]"
        made = " + ".join(name for name in ("optimizers", "by_hand") if name != "by_hand" or self._by_hand())
        if module == "model":
            return made
        params = f"set({module}.parameters())"
        return f"[each for each in {made} if not {params}.isdisjoint(each.param_groups[0]['params'])]"

    def reattach(self, script: Script, assignments: Sequence[Assigned]) -> None:
        """Make the optimizers anew."""
        self.attach(script, assignments)

    def wrap(self, call: str, module: str, options: str, *, plainly: bool = False) -> str:
        """Wrap by torch's own call."""
        return _plain(call, options, module=module)

    def schedule(self, script: Script, module: str, scheduler: Scheduler) -> str:
        """Start one for each optimizer."""
        return self._of_each(script.scheduler(scheduler), module)

    def state_dict(self) -> str:
        """Return those of the optimizers."""
        return self._of_each("optimizer.state_dict()")

    def load_state_dict(self, script: Script, state: str) -> None:
        """Load into the optimizers."""
        _load(script, self.optimizers(), state)

    def detach(self, script: Script) -> None:
        """Forget the optimizers."""
        self._made = []

    def hook_then_optimizer(self, script: Script, comm_hook: str, state: str, made: Assigned, *, some: bool) -> None:
        """Register the hook; the optimizer is one like any other."""
        script.add(f"{script.forward}.register_comm_hook({state}, {comm_hook})")
        self.attach(script, [made])

    def _of_each(self, expression: str, module: str = "model") -> str:
        return f"[{expression}]" if self._alone else f"[{expression} for optimizer in {self.optimizers(module)}]"

    def _each(self, script: Script, optimizers: str, *lines: str) -> None:
        for line in lines:
            if self._alone:
                script.add(line)
            else:
                script.add(f"for optimizer in {optimizers}:", f"    {line}")

    def _hooked(self) -> frozenset[str]:
        return frozenset(name for made in self._made if made.hook for name in made.held)

    def _stepped(self) -> list[Assigned]:
        return [made for made in self._made if made.held <= self._hooked()]

    def _by_hand(self) -> list[Assigned]:
        return [made for made in self._made if not made.held <= self._hooked()]

    def _make(self, made: Assigned) -> str:
        return self._spelling.spell(
            "standard_optimizer",
            optimizer_class=made.optimizer_class,
            params=made.params,
            optimizer_kwargs=made.optimizer_kwargs,
        )


class InBackward:
    """Backward is all there is."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._behind_hook: Assigned | None = None

    def attach(self, script: Script, assignments: Sequence[Assigned], *, more: bool = False) -> None:
        """Attach one after the other, or all at once by the implementation's own call."""
        names = ("optimizer_class", "params", "optimizer_kwargs", "register_hook")
        rows = [dict(zip(names, [*made[:3], str(made.hook)], strict=True)) for made in assignments]
        if self._spelling.offers("attach"):
            together = ", ".join(f"({', '.join(row.values())})" for row in rows)
            script.add(self._spelling.spell("attach", module="model", assignments=f"[{together}]"))
        else:
            script.add(*(self._spelling.spell("apply", **row) for row in rows))

    def backward(self, script: Script, loss: str, options: str = "") -> None:
        """Write one line."""
        module = {"module": "model"} if self._spelling.offers("backward") else {}
        script.add(self._spelling.spell("backward", options, loss=loss, **module))
        if self._behind_hook:
            script.add(f"for param in {self._behind_hook.params}:", "    param.grad = None")

    def step_by_hand(self, script: Script) -> None:
        """Step all that is listed."""
        for line in ("optimizer.step()", "optimizer.zero_grad()"):
            script.add(f"for optimizer in {self.optimizers()}:", f"    {line}")

    def optimizers(self, module: str = "model") -> str:
        """Ask the implementation."""
        listed = self._spelling.spell("optimizers", module=module)
        return f"[*{listed}, functional]" if self._behind_hook else listed

    def reattach(self, script: Script, assignments: Sequence[Assigned]) -> None:
        """Leave it to the implementation."""

    def wrap(self, call: str, module: str, options: str, *, plainly: bool = False) -> str:
        """Wrap by the implementation."""
        return _plain(call, options, module=module) if plainly else self._spelling.spell(call, options, module=module)

    def schedule(self, script: Script, module: str, scheduler: Scheduler) -> str:
        """Start one for each optimizer, or what the implementation makes of it."""
        if not self._spelling.offers("schedule"):
            return f"[{script.scheduler(scheduler)} for optimizer in {self.optimizers(module)}]"
        if scheduler.composed:
            build = f"lambda optimizer: {script.scheduler(scheduler)}"
            return self._spelling.spell("schedule", module=module, scheduler_class=build)
        scheduler_class, options = script.scheduler_class(scheduler), script.options(scheduler.options)
        return self._spelling.spell("schedule", f"**{options}", module=module, scheduler_class=scheduler_class)

    def state_dict(self) -> str:
        """Return the states of what is listed, or by the implementation's own call."""
        if self._spelling.offers("state_dict"):
            return self._spelling.spell("state_dict", module="model")
        return f"[optimizer.state_dict() for optimizer in {self.optimizers()}]"

    def load_state_dict(self, script: Script, state: str) -> None:
        """Load them."""
        if self._spelling.offers("load_state_dict"):
            script.add(self._spelling.spell("load_state_dict", module="model", state=state))
        else:
            _load(script, self.optimizers(), state)

    def detach(self, script: Script) -> None:
        """Detach by the implementation."""
        script.add(self._spelling.spell("detach", module="model"))

    def hook_then_optimizer(self, script: Script, comm_hook: str, state: str, made: Assigned, *, some: bool) -> None:
        """Make a functional optimizer, and let the implementation register both."""
        self._behind_hook = made
        functional = self._spelling.spell(
            "functional_optimizer",
            f"**{made.optimizer_kwargs}",
            optimizer_class=made.optimizer_class,
            params=made.params if some else f"list({made.params})",
        )
        registered = self._spelling.spell(
            "hook_then_optimizer",
            ddp=script.forward,
            comm_hook=comm_hook,
            state=state,
            functional_optimizer="functional",
            params=made.params if some else "None",
        )
        script.add(f"functional = {functional}", registered)


def _plain(call: str, options: str, **arguments: str) -> str:
    return plainly(DEFAULTS[call].format(options=options, **arguments))


def _load(script: Script, optimizers: str, state: str) -> None:
    script.add(f"for optimizer, state in zip({optimizers}, {state}):", "    optimizer.load_state_dict(state)")
