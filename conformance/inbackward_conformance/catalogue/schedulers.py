"""Schedulers: every public class of `torch.optim.lr_scheduler`, with options that have an effect within eight steps.

Classes are read from torch. `uncovered_schedulers` returns those that a later torch adds, for a test to report.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from torch.optim import lr_scheduler

from inbackward_conformance.plan.events import Power, Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.optim import Optimizer

_WARM_UP = Scheduler("LinearLR", {"start_factor": 0.25, "total_iters": 3})
_DECAY = Scheduler("ExponentialLR", {"gamma": 0.7})

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "LambdaLR": [{"lr_lambda": Power(0.8)}],
    "MultiplicativeLR": [{"lr_lambda": Power(0.95)}],
    "StepLR": [{"step_size": 2, "gamma": 0.5}],
    "MultiStepLR": [{"milestones": (1, 4, 5), "gamma": 0.5}],
    "ConstantLR": [{"factor": 0.25, "total_iters": 4}],
    "LinearLR": [{"start_factor": 0.25, "total_iters": 6}],
    "ExponentialLR": [{"gamma": 0.7}],
    "PolynomialLR": [{"total_iters": 7, "power": 2.0}],
    "CosineAnnealingLR": [{"T_max": 4, "eta_min": 0.001}],
    "CosineAnnealingWarmRestarts": [{"T_0": 2, "T_mult": 2}],
    "SequentialLR": [{"schedulers": (_WARM_UP, _DECAY), "milestones": (4,)}],
    "ChainedScheduler": [{"schedulers": (_WARM_UP, _DECAY)}],
    "ReduceLROnPlateau": [{"factor": 0.5, "patience": 1}],
    "CyclicLR": [
        {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "cycle_momentum": False},
        {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "base_momentum": 0.6},
    ],
    "OneCycleLR": [
        {"max_lr": 0.1, "total_steps": 10, "cycle_momentum": False},
        {"max_lr": 0.1, "total_steps": 10, "base_momentum": 0.6, "three_phase": True},
    ],
}
"""Options by class; in a list of two, the second changes momentum or betas as well."""

METRIC = 1.0
"""The metric for each step of a scheduler that needs one; it never improves."""


def scheduler_class(scheduler: Scheduler) -> Any:
    """Return the class in `torch.optim.lr_scheduler` that a scheduler names."""
    return getattr(lr_scheduler, scheduler.name)


def build_scheduler(scheduler: Scheduler, optimizer: Optimizer) -> Any:
    """Build a scheduler, and those that it is composed of, for one optimizer."""
    options = dict(scheduler.options)
    if scheduler.composed:
        options["schedulers"] = [build_scheduler(part, optimizer) for part in options["schedulers"]]
    return scheduler_class(scheduler)(optimizer=optimizer, **options)


def scheduler_names() -> list[str]:
    """Return the names of the public classes in `torch.optim.lr_scheduler`."""
    base = lr_scheduler.LRScheduler
    return sorted(
        name
        for name, member in vars(lr_scheduler).items()
        if inspect.isclass(member) and issubclass(member, base) and member is not base and not name.startswith("_")
    )


def schedulers() -> Iterator[Scheduler]:
    """Yield every scheduler that this torch has."""
    for name in scheduler_names():
        for options in OPTIONS.get(name, []):
            yield Scheduler(name, options)


def momentum_schedulers() -> list[Scheduler]:
    """Return the schedulers that change momentum or betas."""
    return [scheduler for scheduler in schedulers() if "base_momentum" in scheduler.options]


def uncovered_schedulers() -> list[str]:
    """Return the names of classes without options here."""
    return [name for name in scheduler_names() if name not in OPTIONS]


def watches_metric(scheduler: Scheduler) -> bool:
    """Return whether `step` requires a metric."""
    return "metrics" in inspect.signature(scheduler_class(scheduler).step).parameters
