"""A plan as source: what its events write themselves into, as they happen to a `Run`."""

from __future__ import annotations

import re
import textwrap
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch

from inbackward_conformance.comm_hooks import POWER_SGD, find_comm_hook
from inbackward_conformance.events.schedule import Power, Scheduler
from inbackward_conformance.plan import ALL, Assignment, Group, Plan, TensorOption
from inbackward_conformance.printable import expression
from inbackward_conformance.repro.loops import Assigned
from inbackward_conformance.run import build_model, find_optimizer_class
from inbackward_conformance.standard_loop import needs_closure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from inbackward_conformance.events import Event
    from inbackward_conformance.repro.loops import Loop

_BATCH = re.compile(r"\bbatch\b")

LONGEST_PATTERN = 4
"""A pattern of up to so many events that comes several times is written as a loop."""


class Script:
    """The body of one training, by one of the two loops.

    Events write statements with `add`; the model is called `model`, and what forward goes through is `forward`.

    Attributes:
        loop: the way to train.
        built: an expression for a new model.
        device: where it trains.
        forward: the name of what forward goes through.
        needs: objects of the suite that the source refers to by name, for their source to be put above.
        attached: whether the assignments of the plan were made.
        plain: the call that gives a plain tensor of a parameter, where it is none itself.
    """

    def __init__(self, plan: Plan, loop: Loop, built: str, device: str = "cpu") -> None:
        self.plan = plan
        self.loop = loop
        self.built = built
        self.device = device
        self.forward = "model"
        self.needs: set[Any] = set()
        self.attached = False
        self.plain = ""
        self._model = build_model(plan, torch.device("cpu"))
        self._draws_integers = not self._model.batch(torch.Generator())[0].is_floating_point()  # type: ignore[operator]
        self._complex = any(param.is_complex() for param in self._model.parameters())
        if any(param.is_nested for param in self._model.parameters()):
            self.plain = ".values()"
        self._dtype = plan.dtype
        self._indentation = ""
        self._scheduled = False
        self._forwards = 0
        self._lines: list[str] = []

    def write(self, events: Sequence[Event]) -> str:
        """Return the statements of `events`, repetitions as loops."""
        written: list[str] = []
        for event in events:
            self._lines = []
            event.spell(self)
            if self._lines:
                written.append("\n".join(_drawn_where_used(self._lines)))
        return "\n".join(_folded(written))

    def add(self, *lines: str) -> None:
        """Append statements."""
        self._lines += [textwrap.indent(line, self._indentation) for line in lines]

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

    def assign(self, assignment: Assignment) -> Assigned:
        """Return the arguments of `apply`."""
        optimizer_class = find_optimizer_class(assignment.optimizer)
        named = {id(param): name for name, param in self._model.named_parameters()}
        held = [name for item in self._listed(assignment) for name in item]
        params = [self._model.get_parameter(name) for name in held]
        return Assigned(
            self.name_of(optimizer_class) if ":" in assignment.optimizer else f"torch.optim.{assignment.optimizer}",
            self._params(assignment),
            self.options(assignment.options),
            assignment.hook,
            frozenset(named.get(id(param), "") for param in params),
            needs_closure(optimizer_class),
        )

    def options(self, options: Mapping[str, Any]) -> str:
        """Return a dict of options."""
        return "{" + ", ".join(f"{key!r}: {self.value(value)}" for key, value in options.items()) + "}"

    def value(self, value: Any) -> str:
        """Return the value of an option."""
        match value:
            case TensorOption():
                return f"torch.tensor({value.value})"
            case Power():
                return f"lambda epoch: {value.base} ** epoch"
            case Scheduler():
                return self.scheduler(value)
            case tuple() if any(isinstance(item, Scheduler) for item in value):
                return f"[{', '.join(map(self.value, value))}]"
        return expression(value)

    def scheduler_class(self, scheduler: Scheduler) -> str:
        """Return the name of a scheduler's class."""
        return f"lr_scheduler.{scheduler.name}"

    def scheduler(self, scheduler: Scheduler) -> str:
        """Return a scheduler over `optimizer`."""
        options = ", ".join(f"{key}={self.value(value)}" for key, value in scheduler.options.items())
        optimizer = "optimizer=optimizer" if scheduler.composed else "optimizer"  # not every composed one has it first
        return f"{self.scheduler_class(scheduler)}({optimizer}, {options})"

    def name_of(self, found: Any) -> str:
        """Return the name of a class or function of the suite, whose source the script is then given."""
        self.needs.add(found)
        return str(found.__name__)

    @staticmethod
    def attribute(name: str) -> str:
        """Return what is called so in the model: `model[0].weight`."""
        parts = name.split(".") if name else []
        return "model" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)

    def parameters(self, names: Sequence[str]) -> str:
        """Return the list of parameters of these names."""
        return f"[{', '.join(map(self.attribute, names))}]"

    def checkpoint(self, of: str = "") -> str:
        """Return the path of what a method of training saves in shards; empty: this one."""
        return f'f"{{folder}}/{of or type(self.loop).__name__}"'

    @staticmethod
    def another_optimizer() -> str:
        """Return an optimizer over all parameters, which nothing else knows of."""
        return "torch.optim.SGD(model.parameters(), lr=1.0)"

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
        self.add(f"schedules {'+=' if self._scheduled else '='} {started}")
        self._scheduled = True

    def wrap(self, wrapped: str) -> None:
        """Go through a wrapper from here on."""
        self.add(f"wrapped = {wrapped}")
        self.forward = "wrapped"

    def attach_to_new_parameters(self) -> None:
        """Let the loop follow to the Parameter objects that sharding has made."""
        if self.attached:
            self.loop.reattach(self, [self.assign(assignment) for assignment in self.plan.assignments])

    def _params(self, assignment: Assignment) -> str:
        if assignment.params == ALL:
            return "model.named_parameters()" if assignment.named else "model.parameters()"
        if not any(isinstance(item, Group) for item in assignment.params):
            return self.parameters([str(item) for item in assignment.params])
        return "[" + ", ".join(self._group(item) for item in assignment.params) + "]"

    def _group(self, item: Group | str) -> str:
        if isinstance(item, str):
            return self.attribute(item)
        options = "".join(f", {key!r}: {self.value(value)}" for key, value in item.options.items())
        return f"{{'params': {self.parameters(item.params)}{options}}}"

    def _listed(self, assignment: Assignment) -> Iterator[tuple[str, ...]]:
        if assignment.params == ALL:
            yield tuple(name for name, _ in self._model.named_parameters())
            return
        for item in assignment.params:
            names = item.params if isinstance(item, Group) else (str(item),)
            known = dict(self._model.named_parameters(remove_duplicate=False))
            yield tuple(name for name in names if name in known)  # a layer may come later


def _drawn_where_used(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines of an event, a batch that is used once without a name."""
    waiting = ""
    for number, line in enumerate(lines):
        if _draws(line):
            uses = list(takewhile(lambda other: not _draws(other), lines[number + 1 :]))
            if len(_BATCH.findall("\n".join(uses))) == 1 and "lambda" not in "".join(uses):
                waiting = line.partition("batch = ")[2]
                continue
        if waiting and _BATCH.search(line):
            line, waiting = _BATCH.sub(waiting, line), ""  # noqa: PLW2901
        yield line


def _draws(line: str) -> bool:
    return line.lstrip().startswith("batch = ")


def _folded(written: Sequence[str]) -> Iterator[str]:
    """Yield the statements, a pattern that comes several times in a row as a loop."""
    at = 0
    while at < len(written):
        length, times = max(
            ((length, _times(written, at, length)) for length in range(1, LONGEST_PATTERN + 1)),
            key=lambda found: ((found[1] > 1) * found[0] * found[1], -found[0]),
        )
        if times > 1:
            yield f"for _ in range({times}):"
            yield textwrap.indent("\n".join(written[at : at + length]), "    ")
        else:
            length, times = 1, 1
            yield written[at]
        at += length * times


def _times(written: Sequence[str], at: int, length: int) -> int:
    """Return how often the next `length` events come in a row."""
    pattern = written[at : at + length]
    if len(pattern) < length:
        return 1
    times = 1
    while list(written[at + times * length : at + (times + 1) * length]) == list(pattern):
        times += 1
    return times
