"""Source of the parameters, options and schedulers in a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inbackward_conformance.plan import ALL, Assignment, Group, TensorOption
from inbackward_conformance.plan.events import Power, Scheduler
from inbackward_conformance.plan.literals import expression

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ANOTHER_OPTIMIZER = "torch.optim.SGD(model.parameters(), lr=1.0)"
"""An optimizer of all parameters that is not attached."""


def attribute(name: str) -> str:
    """Return the source of a submodule or parameter, such as `model[0].weight`; of the model if the name is empty."""
    parts = name.split(".") if name else []
    return "model" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)


def parameters(names: Sequence[str]) -> str:
    """Return the source of a list of parameters."""
    return f"[{', '.join(map(attribute, names))}]"


def assigned_parameters(assignment: Assignment) -> str:
    """Return the source of the parameters to pass to the optimizer class."""
    if assignment.params == ALL:
        return "model.named_parameters()" if assignment.named else "model.parameters()"
    if isinstance(assignment.params, str):
        return assignment.params
    return "[" + ", ".join(map(_item, assignment.params)) + "]"


def options(values: Mapping[str, Any]) -> str:
    """Return the source of a dict of options."""
    return "{" + ", ".join(f"{key!r}: {option(value)}" for key, value in values.items()) + "}"


def option(value: Any) -> str:
    """Return the source of the value of an option."""
    match value:
        case TensorOption():
            return f"torch.tensor({value.value})"
        case Power():
            return f"lambda epoch: {value.base} ** epoch"
        case Scheduler():
            return scheduler(value)
        case tuple() if any(isinstance(item, Scheduler) for item in value):
            return f"[{', '.join(map(option, value))}]"
    return expression(value)


def scheduler_class(chosen: Scheduler) -> str:
    """Return the source of a scheduler's class."""
    return f"lr_scheduler.{chosen.name}"


def scheduler(chosen: Scheduler) -> str:
    """Return the source of a scheduler for the variable `optimizer`."""
    keywords = ", ".join(f"{key}={option(value)}" for key, value in chosen.options.items())
    optimizer = "optimizer=optimizer" if chosen.composed else "optimizer"  # not always its first parameter
    return f"{scheduler_class(chosen)}({optimizer}, {keywords})"


def _item(item: Group | str) -> str:
    if isinstance(item, str):
        return attribute(item)
    keywords = "".join(f", {key!r}: {option(value)}" for key, value in item.options.items())
    return f"{{'params': {parameters(item.params)}{keywords}}}"
