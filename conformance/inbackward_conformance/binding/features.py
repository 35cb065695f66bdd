"""What the model of a plan asks of optimizer classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from inbackward_conformance.catalogue.build import build_model
from inbackward_conformance.plan import events

if TYPE_CHECKING:
    from inbackward_conformance.plan import Plan

SIXTEEN_BITS = frozenset({"bfloat16", "float16"})


def features_of(plan: Plan) -> frozenset[str]:
    """Return the `FEATURES` of an optimizer class that the model of a plan asks for."""
    with torch.random.fork_rng(devices=[]):
        model = build_model(plan, torch.device("cpu"))
    params = list(model.parameters())
    casts = {event.dtype for event in (*plan.before, *plan.events) if isinstance(event, events.Cast)}
    has = {
        "complex": any(param.is_complex() for param in params),
        "zero_dim": any(param.dim() == 0 for param in params),
        "sparse": any(isinstance(module, torch.nn.Embedding) and module.sparse for module in model.modules()),
        "low_precision": not SIXTEEN_BITS.isdisjoint({plan.dtype, *casts}),
    }
    return frozenset(name for name, asked in has.items() if asked)
