"""Events that change gradients by what is known of all of them."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class ClippedBackward(Event):
    """Run forward and backward on a new batch, with gradients clipped by their total norm before the step.

    The norm is that of the parameters of all optimizers, in the order of their groups.

    Attributes:
        max_norm: the largest total norm, as in `torch.nn.utils.clip_grad_norm_`; None to clip nothing.
        scaler: whether the loss is scaled by a `GradScaler`, and the gradients are unscaled before they are clipped.
        scale: factor of the loss; `inf` and `nan` give non-finite gradients.
        overflow_in: a parameter whose hook makes its gradient infinite in this backward; empty for none.
        skip: branches that this forward leaves out.
    """

    max_norm: float | None = 1.0
    scaler: bool = False
    scale: float = 1.0
    overflow_in: str = ""
    skip: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class ScaledBackward(Event):
    """Run forward, backward of the loss scaled by a `GradScaler`, and `step` and `update` of the scaler."""
