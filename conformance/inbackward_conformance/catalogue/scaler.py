"""The gradient scaler of plans."""

from __future__ import annotations

from typing import Any

import torch

OPTIONS: dict[str, Any] = {"init_scale": 1024.0, "growth_interval": 2}
"""A scale that overflows nothing by itself, and grows within a few steps."""


def build_scaler(device: torch.device) -> torch.amp.GradScaler:
    """Return a new scaler."""
    return torch.amp.GradScaler(device.type, **OPTIONS)
