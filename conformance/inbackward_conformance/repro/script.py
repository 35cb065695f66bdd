"""One training as source: what the functions that write events add their statements to."""

from __future__ import annotations

import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from inbackward_conformance.catalogue.build import build_model
from inbackward_conformance.catalogue.comm_hooks import POWER_SGD, find_comm_hook
from inbackward_conformance.catalogue.optimizers import find_optimizer_class, needs_closure
from inbackward_conformance.plan import ALL, Assignment, Group, Plan
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.loops.loop import AssignmentSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inbackward_conformance.repro.loops.in_backward import InBackwardSource
    from inbackward_conformance.repro.loops.standard_loop import StandardLoopSource


class Script:
    """The body of one training, by one of the two loops.

    Statements are added with `add`. The model is called `model`, and the module that forward goes through `forward`.

    Attributes:
        loop: the way to train.
        built: an expression for a new model.
        device: where it trains.
        forward: the name of the module that forward goes through.
        needs: objects of the suite that the source refers to by name, for their source to be put above.
        attached: whether the assignments of the plan were made.
        scheduled: whether a schedule was started.
        lines: the statements that were added.
    """

    def __init__(
        self, plan: Plan, loop: StandardLoopSource | InBackwardSource, built: str, device: str = "cpu"
    ) -> None:
        self.plan = plan
        self.loop = loop
        self.built = built
        self.device = device
        self.forward = "model"
        self.needs: set[Any] = set()
        self.attached = False
        self.lines: list[str] = []
        self._model = build_model(plan, torch.device("cpu"))
        self._draws_integers = not self._model.batch(torch.Generator())[0].is_floating_point()  # type: ignore[operator]
        self._complex = any(param.is_complex() for param in self._model.parameters())
        self._local = "({0}.values() if {0}.is_nested else {0})" if self._has_nested_parameters() else "{0}"
        self._dtype = plan.dtype
        self._indentation = ""
        self.scheduled = False
        self._forwards = 0

    def add(self, *lines: str) -> None:
        """Append statements."""
        self.lines += [textwrap.indent(line, self._indentation) for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Append a compound statement, `with …:` or `for …:`, whose body is what is added meanwhile."""
        self.add(head)
        self._indentation += "    "
        yield
        self._indentation = self._indentation[4:]

    def draw_batch(self) -> None:
        """Give `batch` the next value."""
        drawn = "next(batches)"
        if self._dtype and not self._draws_integers:
            drawn += f".to(torch.{self._dtype})"
        self.add(f"batch = {drawn}")

    def cast(self, dtype: str) -> None:
        """Cast batches from here on."""
        self._dtype = dtype

    def loss(self, skip: tuple[str, ...] = (), forward: str = "") -> str:
        """Return the loss over `batch`; `forward` is another expression for the output."""
        output = forward or f"{self.forward}(batch{f', skip={skip!r}' if skip else ''})"
        if self._complex:
            return f"torch.view_as_real({output}).square().sum(-1).mean()"
        return f"{output}.square().mean()"

    def keep_loss(self, loss: str) -> None:
        """Give the loss a name of its own, for `kept_loss`."""
        self.add(f"loss_{self._forwards} = {loss}")
        self._forwards += 1

    def kept_loss(self, number: int) -> str:
        """Return the name of a loss that was kept."""
        return f"loss_{number}"

    def assign(self, assignment: Assignment) -> AssignmentSource:
        """Return the arguments of `apply`."""
        optimizer_class = find_optimizer_class(assignment.optimizer)
        own = ":" in assignment.optimizer
        return AssignmentSource(
            self.name_of(optimizer_class) if own else f"torch.optim.{assignment.optimizer}",
            sources.assigned_parameters(assignment),
            sources.options(assignment.options),
            assignment.hook,
            frozenset(self._held(assignment)),
            needs_closure(optimizer_class),
        )

    def name_of(self, needed: Any) -> str:
        """Return the name of a class or function of the suite, whose source the script is then given."""
        self.needs.add(needed)
        return str(needed.__name__)

    def checkpoint(self, of: str = "") -> str:
        """Return the path of what a method of training saves in shards; empty: this one."""
        return f'f"{{folder}}/{of or self.loop.name}"'

    def comm_hook(self, name: str) -> tuple[str, str]:
        """Return the source of a communication hook that `find_comm_hook` knows, and of the state it is given."""
        if name == "bf16_compress":
            return self.name_of(find_comm_hook(name)[0]), "None"
        if name == "powerSGD":
            options = ", ".join(f"{option}={value}" for option, value in POWER_SGD.items())
            return "power_sgd.powerSGD_hook", f"power_sgd.PowerSGDState(None, {options})"
        return f"default_hooks.{name}_hook", "None"

    def start_schedule(self, started: str) -> None:
        """Add to `schedules`."""
        self.add(f"schedules {'+=' if self.scheduled else '='} {started}")
        self.scheduled = True

    def wrap(self, wrapped: str) -> None:
        """Let forward go through a wrapper from here on."""
        self.add(f"wrapped = {wrapped}")
        self.forward = "wrapped"

    def shard(self) -> None:
        """Take parameters for DTensors from here on."""
        self._local = "{0}.to_local()"

    def local(self, tensor: str) -> str:
        """Return an expression for a plain tensor of the values of `tensor`, a parameter or its gradient."""
        return self._local.format(tensor)

    def attach_to_new_parameters(self) -> None:
        """Let the loop follow to the Parameter objects that sharding has made."""
        if self.attached:
            self.add(*self.loop.reattach([self.assign(assignment) for assignment in self.plan.assignments]))

    def _has_nested_parameters(self) -> bool:
        return any(param.is_nested for param in self._model.parameters())

    def _held(self, assignment: Assignment) -> Iterator[str]:
        """Yield the names of the parameters, a shared one under its first; a layer may come later."""
        names = {id(param): name for name, param in self._model.named_parameters()}
        known = dict(self._model.named_parameters(remove_duplicate=False))
        if assignment.params == ALL:
            yield from names.values()
            return
        for item in assignment.params:
            for name in item.params if isinstance(item, Group) else (str(item),):
                if name in known:
                    yield names[id(known[name])]
