"""Finds what a refused attachment has left: parameters that a plain backward changes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from inbackward_conformance.tensors import copied, same_bits

if TYPE_CHECKING:
    from torch import Tensor

    from inbackward_conformance.training.run import TrainingRun


def changed_by_backward(run: TrainingRun) -> tuple[str, ...]:
    """Return the names of the parameters that `loss.backward()` changes; call it after a refused attachment.

    The optimizers that an implementation lists don't tell: one that raises halfway has often listed nothing yet.
    """
    before = _values(run)
    with suppress(Exception):  # of models on which plain backward raises too, which says nothing
        run.loss(run.next_batch()).backward()
    return tuple(name for name, value in _values(run).items() if name in before and not same_bits(before[name], value))


def _values(run: TrainingRun) -> dict[str, Tensor]:
    return {name: copied(param) for name, param in run.model.named_parameters()}
