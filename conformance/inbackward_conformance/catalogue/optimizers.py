"""Finds the optimizer class that a plan names, and makes options of its literals."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import torch

from inbackward_conformance.plan import TensorOption

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer

FORMER_MODULES = {"inbackward_conformance.hazardous_optimizers": "inbackward_conformance.catalogue.custom_optimizers"}
"""Modules by the names that plans in earlier records give them."""


def find_optimizer_class(name: str) -> type[Optimizer]:
    """Return the class in `torch.optim` of that name, or the one at `package.module:Class`."""
    module, _, attribute = name.rpartition(":")
    found: type[Optimizer] = getattr(
        importlib.import_module(FORMER_MODULES.get(module, module) or "torch.optim"), attribute
    )
    return found


def live_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as an optimizer takes them: every `TensorOption` a new tensor."""
    return {
        key: torch.tensor(value.value) if isinstance(value, TensorOption) else value for key, value in options.items()
    }


def needs_closure(optimizer_class: type[Optimizer]) -> bool:
    """Whether `step` has a closure parameter that must be given."""
    parameter = inspect.signature(optimizer_class.step).parameters.get("closure")
    return parameter is not None and parameter.default is parameter.empty
