"""Schedules: options of optimizers that change during training."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inbackward_conformance.printable import Printable

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from inbackward_conformance.repro.script import Script
    from inbackward_conformance.run import Run


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
    def scheduler_class(self) -> Any:
        """The class."""
        return getattr(importlib.import_module("torch.optim.lr_scheduler"), self.name)

    @property
    def composed(self) -> bool:
        """Whether it is made of other schedulers."""
        return "schedulers" in self.options

    def build(self, optimizer: Optimizer) -> Any:
        """Return the scheduler, with those that it is made of, over one optimizer."""
        options = dict(self.options)
        if self.composed:
            options["schedulers"] = [part.build(optimizer) for part in options["schedulers"]]
        return self.scheduler_class(optimizer=optimizer, **options)


@dataclass(frozen=True, repr=False)
class StartSchedule(Printable):
    """Start a scheduler over all optimizers, or over those of a submodule's parameters.

    Attributes:
        scheduler: which one.
        submodule: name of the submodule; empty: the whole model.
    """

    scheduler: Scheduler
    submodule: str = ""

    def happen(self, run: Run) -> None:
        """Start it as one does after attachment."""
        run.schedules += run.method.schedule(run.model.get_submodule(self.submodule), self.scheduler)

    def spell(self, script: Script) -> None:
        """Start it as one does after attachment."""
        module = script.attribute(self.submodule)
        script.start_schedule(script.loop.schedule(script, module, self.scheduler))


@dataclass(frozen=True, repr=False)
class StepSchedules(Printable):
    """Step every scheduler that was started.

    Attributes:
        metric: what a scheduler that watches one is given.
    """

    metric: float | None = None

    def happen(self, run: Run) -> None:
        """Step them in the order in which they were started."""
        for schedule in run.schedules:
            if self.metric is None:
                schedule.step()
            else:
                schedule.step(self.metric)

    def spell(self, script: Script) -> None:
        """Step them in the order in which they were started."""
        metric = "" if self.metric is None else self.metric
        script.add("for schedule in schedules:", f"    schedule.step({metric})")


@dataclass(frozen=True, repr=False)
class SetOption(Printable):
    """Set an option by hand in the `param_groups` of the optimizers.

    Attributes:
        option: its name, as in `lr`.
        value: its new value.
        params: set it in the groups that hold no other parameters than these; empty: in all.
    """

    option: str
    value: Any
    params: tuple[str, ...] = ()

    def happen(self, run: Run) -> None:
        """Write into the groups."""
        chosen = {id(run.model.get_parameter(name)) for name in self.params}
        for optimizer in run.method.optimizers(run.model):
            for group in optimizer.param_groups:
                if not chosen or chosen.issuperset(map(id, group["params"])):
                    group[self.option] = self.value

    def spell(self, script: Script) -> None:
        """Write into the groups."""
        with (
            script.block(f"for optimizer in {script.loop.optimizers()}:"),
            script.block("for group in optimizer.param_groups:"),
        ):
            setting = f"group[{self.option!r}] = {script.value(self.value)}"
            if self.params:
                params = script.parameters(self.params)
                script.add(f"if set(group['params']) <= set({params}):", f"    {setting}")
            else:
                script.add(setting)
