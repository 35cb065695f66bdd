"""Configurations of optimizers: every public class of `torch.optim`, with values for each option of its constructor.

Classes and their options are read from torch, so optimizers that a later torch adds are included. `unknown_options`
returns new options without a value here, for a test to report.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from inbackward_conformance.catalogue.optimizers import bind_options, find_optimizer_class, needs_closure
from inbackward_conformance.plan import ALL, Assignment, TensorOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VALUES: dict[str, tuple[Any, ...]] = {
    "lr": (0.01, TensorOption(0.01)),
    "momentum": (0.0, 0.9),
    "dampening": (0.0, 0.5),
    "nesterov": (False, True),
    "weight_decay": (0.0, 0.1),
    "amsgrad": (False, True),
    "centered": (False, True),
    "maximize": (False, True),
    "decoupled_weight_decay": (False, True),
    "lr_decay": (0.0, 0.1),
    "initial_accumulator_value": (0.0, 0.1),
    "adjust_lr_fn": ("original", "match_rms_adamw"),
}
"""Options that are combined with each other, default value first."""

VARIED_ALONE: dict[str, Any] = {
    "betas": (0.8, 0.95),
    "eps": 1e-3,
    "rho": 0.8,
    "alpha": 0.8,
    "lambd": 1e-2,
    "t0": 2.0,
    "momentum_decay": 0.1,
    "etas": (0.6, 1.4),
    "step_sizes": (1e-4, 0.02),
    "beta2_decay": -0.5,
    "d": 0.5,
    "ns_coefficients": (3.0, -4.0, 2.0),
    "ns_steps": 3,
}
"""Options that are varied one at a time, which shows that they are passed on: each enters one formula."""

KINDS: dict[str, dict[str, Any]] = {
    "loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "differentiable": {"differentiable": True},
    "capturable": {"capturable": True},
}
"""Implementations of the same step. The last two are not combined with other options: when leaf parameters are trained,
`differentiable` raises everywhere, and `capturable` raises on CPU."""

COMBINED = ("loop", "foreach", "fused")

EPS_OF = {"Adafactor": (1e-4, 1e-2)}
"""Values of `eps` for classes where it is a pair."""

MODEL_FOR: dict[str, tuple[str, str | tuple[str, ...]]] = {
    "SparseAdam": ("SparseEmbedding", ALL),
    "Muon": ("MLP", ("0.weight", "2.weight", "4.weight")),
}
"""Model and parameters for classes that do not support all parameters of the MLP."""


@dataclass(frozen=True)
class Configuration:
    """One optimizer class with one set of options, and the model to test it on."""

    optimizer: str
    options: dict[str, Any]
    kind: str = ""

    @property
    def model(self) -> str:
        """The name of the model."""
        return model_for(self.optimizer)

    @property
    def assignment(self) -> Assignment:
        """The assignment to parameters of the model."""
        return Assignment(self.optimizer, self.options, MODEL_FOR.get(self.optimizer, ("MLP", ALL))[1])

    @property
    def standard_may_raise(self) -> bool:
        """Whether the standard loop may raise, on this device or on any."""
        return standard_may_raise(self.assignment)

    def __str__(self) -> str:
        """Return a case id: the class, and all options that are not at their first value."""
        first = {key: values[0] for key, values in VALUES.items()}
        varied = [
            f"{key}={_short(value)}"
            for key, value in self.options.items()
            if key not in KINDS["loop"] and first.get(key) != value and key not in KINDS
        ]
        return "-".join([self.optimizer, *([self.kind] if self.kind else []), *varied])


def model_for(optimizer: str) -> str:
    """Return the name of the model to test a class on."""
    return MODEL_FOR.get(optimizer, ("MLP", ALL))[0]


def standard_may_raise(assignment: Assignment) -> bool:
    """Return whether the standard loop may raise, on this device or on any, by the implementation of its step."""
    return any(assignment.options.get(kind) for kind in ("differentiable", "capturable", "fused"))


def optimizer_names() -> list[str]:
    """Return the names of the public optimizer classes in `torch.optim`."""
    base = torch.optim.Optimizer
    return sorted(
        name
        for name, member in vars(torch.optim).items()
        if inspect.isclass(member) and issubclass(member, base) and member is not base
    )


def closure_free_optimizer_names() -> list[str]:
    """Return the names of the classes that can step without a closure."""
    return [name for name in optimizer_names() if not needs_closure(find_optimizer_class(name))]


def configurations(names: Iterable[str] | None = None) -> Iterator[Configuration]:
    """Yield every configuration that the constructors accept, by default of all classes that need no closure."""
    for name in closure_free_optimizer_names() if names is None else names:
        for configuration in _candidates(name):
            if _constructor_accepts(configuration):
                yield configuration


def unknown_options() -> dict[str, list[str]]:
    """Return the options that no configuration varies, by class."""
    known = {*VALUES, *VARIED_ALONE, *(key for kind in KINDS.values() for key in kind)}
    names = closure_free_optimizer_names()
    return {name: unknown for name in names if (unknown := [key for key in _options(name) if key not in known])}


def _candidates(name: str) -> Iterator[Configuration]:
    accepted = _options(name)
    combined = {key: values for key, values in VALUES.items() if key in accepted}
    combinations = [dict(zip(combined, values, strict=True)) for values in itertools.product(*combined.values())]
    kinds = {kind: options for kind, options in KINDS.items() if options.keys() <= set(accepted)} or {"": {}}
    for kind, options in kinds.items():
        for combination in combinations if kind in {*COMBINED, ""} else combinations[:1]:
            yield Configuration(name, combination | options, kind)
    for key in accepted:
        if key in VARIED_ALONE:
            value = EPS_OF.get(name, VARIED_ALONE[key]) if key == "eps" else VARIED_ALONE[key]
            yield Configuration(name, combinations[0] | {key: value})


def _options(name: str) -> list[str]:
    return list(inspect.signature(find_optimizer_class(name)).parameters)[1:]


def _constructor_accepts(configuration: Configuration) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            find_optimizer_class(configuration.optimizer)(
                [torch.nn.Parameter(torch.zeros(2, 2))], **bind_options(configuration.options)
            )
    except (TypeError, ValueError, RuntimeError):
        return False
    return True


def _short(value: Any) -> str:
    if isinstance(value, TensorOption):
        return "tensor"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
