"""Schedules: options of optimizers that change during training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inbackward_conformance.plan.events.event import Event
from inbackward_conformance.plan.literals import Printable


@dataclass(frozen=True, repr=False)
class Power(Printable):
    """A function that can be printed: epoch -> base ** epoch. For `lr_lambda`."""

    base: float

    def __call__(self, epoch: int) -> float:
        """Return the power."""
        return self.base**epoch


@dataclass(frozen=True, repr=False)
class Scheduler(Printable):
    """A class of `torch.optim.lr_scheduler` with its options; `schedulers` among them are `Scheduler`s in turn."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def composed(self) -> bool:
        """Whether it is made of other schedulers."""
        return "schedulers" in self.options


@dataclass(frozen=True, repr=False)
class StartSchedule(Event):
    """Start a scheduler over all optimizers, or over those of a submodule's parameters.

    Attributes:
        scheduler: which one.
        submodule: name of the submodule; empty: the whole model.
    """

    scheduler: Scheduler
    submodule: str = ""


@dataclass(frozen=True, repr=False)
class StepSchedules(Event):
    """Step every scheduler that was started.

    Attributes:
        metric: what a scheduler that watches one is given.
    """

    metric: float | None = None


@dataclass(frozen=True, repr=False)
class SetOption(Event):
    """Set an option by hand in the `param_groups` of the optimizers.

    Attributes:
        option: its name, as in `lr`.
        value: its new value.
        params: set it in the groups that hold no other parameters than these; empty: in all.
    """

    option: str
    value: Any
    params: tuple[str, ...] = ()
