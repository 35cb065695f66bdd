"""Finds what a refused attachment has left: parameters that a plain backward changes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from inbackward_conformance.tensors import copied, same_bits

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from inbackward_conformance.training.trace import Trace


def look_for_what_is_left(trace: Trace, model: nn.Module, compute_loss: Callable[[], Tensor]) -> None:
    """Run a plain backward after an attachment that raised, and add to the error of the trace what it changes.

    The listed optimizers do not tell: an implementation that raises halfway has often listed nothing yet.
    """
    if trace.raised and not trace.raised.accidental:
        trace.raised = replace(trace.raised, changed_after=_changed_by_backward(model, compute_loss))


def _changed_by_backward(model: nn.Module, compute_loss: Callable[[], Tensor]) -> tuple[str, ...]:
    """Return the names of the parameters that backward changes, and not forward, which may average parameters."""
    before: dict[str, Tensor] = {}
    with suppress(Exception):  # some models raise here whatever is attached; what has changed until then counts
        loss = compute_loss()
        before = _values(model)
        loss.backward()
    after = _values(model)
    return tuple(name for name, value in before.items() if name in after and not same_bits(value, after[name]))


def _values(model: nn.Module) -> dict[str, Tensor]:
    return {name: copied(param) for name, param in model.named_parameters()}
