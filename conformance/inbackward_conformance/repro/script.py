"""The source of one training function, which the functions in `write` add statements to."""

from __future__ import annotations

import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from inbackward_conformance.catalogue.build import build_model
from inbackward_conformance.catalogue.comm_hooks import POWER_SGD, find_comm_hook
from inbackward_conformance.catalogue.optimizers import find_optimizer_class, needs_closure
from inbackward_conformance.catalogue.selected import is_selected
from inbackward_conformance.plan import Assignment, Group, Plan
from inbackward_conformance.plan.literals import expression
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.bound_optimizers import import_of
from inbackward_conformance.repro.failure import CannotWrite
from inbackward_conformance.repro.loops.loop import AssignmentSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inbackward_conformance.repro.loops.in_backward import InBackwardSource
    from inbackward_conformance.repro.loops.standard_loop import StandardLoopSource


class Script:
    """The body of one training function, by one of the two loops; the variable of the model is `model`.

    Attributes:
        loop: the standard loop, or that of the implementation.
        built: an expression for a new model.
        device: the device to train on.
        forward: the name of the module to call in forward.
        imports: statements that import optimizer classes of the implementation's own.
        needs: objects of the suite that the source names; the script needs their definitions.
        attached: whether the assignments of the plan are attached.
        restructured: whether the model was given other parameters than at first, or at other places.
        scaled: whether a gradient scaler is made.
        scheduled: whether a schedule is started.
        lines: the statements so far.
    """

    def __init__(
        self, plan: Plan, loop: StandardLoopSource | InBackwardSource, built: str, device: str = "cpu"
    ) -> None:
        self.plan = plan
        self.loop = loop
        self.built = built
        self.device = device
        self.forward = "model"
        self.imports: set[str] = set()
        self.needs: set[Any] = set()
        self.attached = False
        self.restructured = False
        self.lines: list[str] = []
        self._model = build_model(plan, torch.device("cpu"))
        self._draws_integers = not self._model.batch(torch.Generator())[0].is_floating_point()  # type: ignore[operator]
        self._complex = any(param.is_complex() for param in self._model.parameters())
        self._local = "({0}.values() if {0}.is_nested else {0})" if self._has_nested_parameters() else "{0}"
        self._dtype = plan.dtype
        self._indentation = ""
        self._has_mesh = False
        self.scaled = False
        self.scheduled = False
        self._forwards = 0

    def add(self, *lines: str) -> None:
        """Append statements."""
        self.lines += [textwrap.indent(line, self._indentation) for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Append a compound statement, such as `for …:`; statements added within the context are its body."""
        self.add(head)
        before = len(self.lines)
        self._indentation += "    "
        yield
        if len(self.lines) == before:
            self.add("pass")
        self._indentation = self._indentation[4:]

    def draw_batch(self) -> None:
        """Append the statement that assigns the next batch to `batch`."""
        batch = "next(batches)"
        if self._dtype and not self._draws_integers:
            batch += f".to(torch.{self._dtype})"
        self.add(f"batch = {batch}")

    def cast(self, dtype: str) -> None:
        """Cast all later batches."""
        self._dtype = dtype
        self._complex = dtype.startswith("complex")

    def loss(self, skip: tuple[str, ...] = (), forward: str = "", scale: float = 1.0) -> str:
        """Return the loss of `batch`, times `scale`; `forward` is another expression for the output."""
        if scale != 1.0:
            return f"({self.loss(skip, forward)} * {expression(scale)})"
        output = forward or f"{self.forward}(batch{f', skip={skip!r}' if skip else ''})"
        if getattr(self._model, "returns_loss", False):
            return output
        if self._complex:
            return f"((output := {output}) * output.conj()).real.mean()"
        return f"{output}.square().mean()"

    def keep_loss(self, loss: str) -> None:
        """Assign the loss to a variable, for `kept_loss`."""
        self.add(f"loss_{self._forwards} = {loss}")
        self._forwards += 1

    def kept_loss(self, number: int) -> str:
        """Return the name of the variable of a kept loss."""
        return f"loss_{number}"

    def assign(self, assignment: Assignment) -> AssignmentSource:
        """Return the source of an assignment.

        Raises:
            CannotWrite: it has no hook, and parameters that the model did not have at first: their names don't tell
                whether other assignments hook them.
        """
        if not assignment.hook and self.restructured:
            raise CannotWrite("an assignment without a hook after the model was given other parameters")
        optimizer_class = find_optimizer_class(assignment.optimizer)
        name = f"torch.optim.{assignment.optimizer}"
        if line := import_of(assignment.optimizer):
            self.imports.add(line)
            name = assignment.optimizer.rpartition(":")[2]
        elif ":" in assignment.optimizer:
            name = self.name_of(optimizer_class)
        return AssignmentSource(
            name,
            sources.assigned_parameters(assignment),
            sources.options(assignment.options),
            assignment.hook,
            frozenset(self._param_names(assignment)),
            needs_closure(optimizer_class),
        )

    def name_of(self, definition: Any) -> str:
        """Return the name of a class or function of the suite, and add it to `needs`."""
        self.needs.add(definition)
        return str(definition.__name__)

    def checkpoint(self, of: str = "") -> str:
        """Return the path of a sharded checkpoint of a method of training, by default of this one."""
        return f'f"{{folder}}/{of or self.loop.name}"'

    def comm_hook(self, name: str) -> tuple[str, str]:
        """Return the source of a communication hook and its state, as in `find_comm_hook`."""
        if name == "bf16_compress":
            return self.name_of(find_comm_hook(name)[0]), "None"
        if name == "powerSGD":
            options = ", ".join(f"{option}={value}" for option, value in POWER_SGD.items())
            return "power_sgd.powerSGD_hook", f"power_sgd.PowerSGDState(None, {options})"
        return f"default_hooks.{name}_hook", "None"

    def start_schedule(self, started: str) -> None:
        """Append the statement that adds schedulers to `schedules`."""
        self.add(f"schedules {'+=' if self.scheduled else '='} {started}")
        self.scheduled = True

    def wrap(self, wrapped: str) -> None:
        """Append the statement that wraps the model, and call the wrapper in later forwards."""
        self.add(f"wrapped = {wrapped}")
        self.forward = "wrapped"

    def make_mesh(self) -> None:
        """Append the statement that makes the device mesh of the plan's ranks, if it is not made yet."""
        if self._has_mesh or not self.plan.ranks:
            return
        sizes = self.plan.ranks.mesh
        shape, names = expression(tuple(sizes.values())), expression(tuple(sizes))
        self.add(f"mesh = dist.init_device_mesh({self.device!r}, {shape}, mesh_dim_names={names})")
        self._has_mesh = True

    def shard(self) -> None:
        """Treat parameters as DTensors from now on."""
        if self._local == "{0}":
            self._local = "{0}.to_local()"

    def shard_some(self) -> None:
        """Treat parameters as DTensors from now on, where they are."""
        self._local = "({0}.to_local() if hasattr({0}, 'to_local') else {0})"

    def local(self, tensor: str) -> str:
        """Return an expression for the local values of `tensor`, a parameter or its gradient, as a plain tensor."""
        return self._local.format(tensor)

    def attach_to_new_parameters(self) -> None:
        """Let the loop attach to the Parameter objects that sharding has made."""
        if self.attached:
            self.add(*self.loop.reattach([self.assign(assignment) for assignment in self.plan.assignments]))

    def _has_nested_parameters(self) -> bool:
        return any(param.is_nested for param in self._model.parameters())

    def _param_names(self, assignment: Assignment) -> Iterator[str]:
        """Yield the first name of each parameter, except those of layers that the model adds later."""
        names = {id(param): name for name, param in self._model.named_parameters()}
        known = dict(self._model.named_parameters(remove_duplicate=False))
        if isinstance(assignment.params, str):
            for name, param in self._model.named_parameters():
                if is_selected(param, assignment.params):
                    yield name
            return
        for item in assignment.params:
            for name in item.params if isinstance(item, Group) else (str(item),):
                if name in known:
                    yield names[id(known[name])]
