"""Finds the optimizer class that a plan names, and turns its options into keyword arguments."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import torch

from inbackward_conformance.plan import TensorOption

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.optim import Optimizer

FORMER_MODULES = {"inbackward_conformance.hazardous_optimizers": "inbackward_conformance.catalogue.custom_optimizers"}
"""Current names of modules that plans in earlier records name."""


def find_optimizer_class(name: str) -> type[Optimizer]:
    """Return the class of that name in `torch.optim`, or the class at `package.module:Class`."""
    module, _, attribute = name.rpartition(":")
    imported = importlib.import_module(FORMER_MODULES.get(module, module) or "torch.optim")
    optimizer_class: type[Optimizer] = getattr(imported, attribute)
    return optimizer_class


def bind_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments for an optimizer class, with a new tensor for every `TensorOption`."""
    return {
        key: torch.tensor(value.value) if isinstance(value, TensorOption) else value for key, value in options.items()
    }


def needs_closure(optimizer_class: Callable[..., Optimizer]) -> bool:
    """Return whether `step` requires a closure; False for a function that returns an optimizer.

    A class whose signature does not say so has an attribute `needs_closure`.
    """
    if getattr(optimizer_class, "needs_closure", False):
        return True
    step: Callable[..., object] | None = getattr(optimizer_class, "step", None)
    parameter = inspect.signature(step).parameters.get("closure") if step else None
    return parameter is not None and parameter.default is parameter.empty
