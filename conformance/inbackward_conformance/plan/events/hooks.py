"""What users hang on parameters."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event

LARGEST_NORM = 0.01


@dataclass(frozen=True, repr=False)
class ClipGradients(Event):
    """Hang a hook on each parameter that clips the norm of its gradient.

    Attributes:
        by: `register_hook`, which gives another gradient back, or `register_post_accumulate_grad_hook`, which changes
            `param.grad`.
    """

    by: str


@dataclass(frozen=True, repr=False)
class DropGradients(Event):
    """Hang a post-accumulate-grad hook on some parameters that sets `param.grad` to None: they are not to step."""

    params: tuple[str, ...]
