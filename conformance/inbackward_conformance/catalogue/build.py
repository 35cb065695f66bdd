"""Finds the model that a plan names, and builds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from inbackward_conformance.catalogue import (
    checkpointed_models,
    hazardous_models,
    layer_graph,
    models,
    tensor_subclasses,
)

if TYPE_CHECKING:
    from torch import nn

    from inbackward_conformance.plan import Plan

MODULES = (models, hazardous_models, checkpointed_models, tensor_subclasses, layer_graph)


def build_model(plan: Plan, device: torch.device) -> nn.Module:
    """Build the plan's model: cast, shared and frozen as the plan says."""
    model = model_class(plan)(*plan.arguments).to(device, dtype_of(plan))
    for name, source in plan.shared:
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, model.get_parameter(source))
    for name in plan.frozen:
        model.get_parameter(name).requires_grad_(False)
    return model


def model_class(plan: Plan) -> type[nn.Module]:
    """Return the class of the catalogue that the plan names."""
    module = next(module for module in MODULES if hasattr(module, plan.model))
    found: type[nn.Module] = getattr(module, plan.model)
    return found


def dtype_of(plan: Plan) -> torch.dtype | None:
    """Return the dtype that the plan's model and batches are cast to; None: as the model is built."""
    return getattr(torch, plan.dtype) if plan.dtype else None
