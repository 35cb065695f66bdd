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

    The listed optimizers do not tell: an implementation that raises halfway has often listed nothing yet. What forward
    changes, such as a moving average of parameters, does not count.
    """
    before: dict[str, Tensor] = {}
    with suppress(Exception):  # some models raise here whatever is attached; what has changed until then counts
        loss = run.loss(run.next_batch())
        before = _values(run)
        loss.backward()
    after = _values(run)
    return tuple(name for name, value in before.items() if name in after and not same_bits(value, after[name]))


def _values(run: TrainingRun) -> dict[str, Tensor]:
    return {name: copied(param) for name, param in run.model.named_parameters()}
