"""Events that change options of optimizers during training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inbackward_conformance.plan.events.event import Event
from inbackward_conformance.plan.literals import Printable


@dataclass(frozen=True, repr=False)
class Power(Printable):
    """A printable function for `lr_lambda`: epoch -> base ** epoch."""

    base: float

    def __call__(self, epoch: int) -> float:
        """Return the factor of an epoch."""
        return self.base**epoch


@dataclass(frozen=True, repr=False)
class Scheduler(Printable):
    """A class of `torch.optim.lr_scheduler` with its options; an option `schedulers` is a tuple of `Scheduler`s."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def composed(self) -> bool:
        """Whether the scheduler is composed of other schedulers."""
        return "schedulers" in self.options


@dataclass(frozen=True, repr=False)
class StartSchedule(Event):
    """Start a scheduler for all optimizers, or for those of a submodule's parameters.

    Attributes:
        scheduler: the scheduler.
        submodule: name of the submodule; empty for the whole model.
    """

    scheduler: Scheduler
    submodule: str = ""


@dataclass(frozen=True, repr=False)
class StepSchedules(Event):
    """Step every started scheduler.

    Attributes:
        metric: argument of `step`, for a scheduler that needs one.
    """

    metric: float | None = None


@dataclass(frozen=True, repr=False)
class SetOption(Event):
    """Set an option in the `param_groups` of the optimizers.

    Attributes:
        option: name of the option, such as `lr`.
        value: the new value.
        params: restrict this to parameter groups without any other parameters; empty for all groups.
    """

    option: str
    value: Any
    params: tuple[str, ...] = ()
