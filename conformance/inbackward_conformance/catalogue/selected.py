"""The parameters that an assignment names by what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan.assignment import ALL, MATRICES, TRAINED

if TYPE_CHECKING:
    from torch import nn


def is_selected(param: nn.Parameter, selection: str) -> bool:
    """Return whether the parameter belongs to one of `SELECTIONS`."""
    if selection in {ALL, TRAINED}:
        return selection == ALL or param.requires_grad
    is_matrix = param.dim() == 2  # noqa: PLR2004
    return param.requires_grad and is_matrix == (selection == MATRICES)
