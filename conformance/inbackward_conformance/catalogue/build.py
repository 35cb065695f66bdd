"""Builds the model of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from inbackward_conformance.catalogue import (
    checkpointed_models,
    hazardous_models,
    language_architectures,
    layer_graph,
    media_architectures,
    models,
    sharded_models,
    shared_storages,
    tensor_subclasses,
)
from inbackward_conformance.catalogue.architecture import Architecture
from inbackward_conformance.outcome import NotRun
from inbackward_conformance.raised_error import text_of

if TYPE_CHECKING:
    from torch import nn

    from inbackward_conformance.plan import Plan

MODULES = (
    models,
    hazardous_models,
    checkpointed_models,
    shared_storages,
    sharded_models,
    tensor_subclasses,
    layer_graph,
    language_architectures,
    media_architectures,
)


def build_model(plan: Plan, device: torch.device) -> nn.Module:
    """Build the plan's model: cast it, tie, share and freeze its parameters.

    Raises:
        NotRun: it is of another library, whose version here does not build it.
    """
    model = _new_model(plan).to(device, dtype_of(plan))
    if ties_weights(plan):
        model.tie_weights()  # type: ignore[operator]
    for name, source in plan.shared:
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, model.get_parameter(source))
    for name in plan.frozen:
        model.get_parameter(name).requires_grad_(False)
    return model


def model_class(plan: Plan) -> type[nn.Module]:
    """Return the model class that the plan names."""
    module = next(module for module in MODULES if hasattr(module, plan.model))
    model: type[nn.Module] = getattr(module, plan.model)
    return model


def ties_weights(plan: Plan) -> bool:
    """Return whether parameters of the plan's model share memory, which has to be done on the device."""
    return hasattr(model_class(plan), "tie_weights")


def is_of_a_library(plan: Plan) -> bool:
    """Return whether the model is of another library, so that what it does depends on the library's version."""
    return issubclass(model_class(plan), Architecture)


def dtype_of(plan: Plan) -> torch.dtype | None:
    """Return the dtype to cast the model and its batches to; None for no cast."""
    return getattr(torch, plan.dtype) if plan.dtype else None


def _new_model(plan: Plan) -> nn.Module:
    try:
        return model_class(plan)(*plan.arguments)
    except Exception as error:
        if is_of_a_library(plan):
            raise NotRun(f"the versions of libraries here do not build {plan.model}: {text_of(error)}") from error
        raise
