"""Events that register a user's hooks on parameters."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class ClipGradients(Event):
    """Register a hook on each parameter that clips the norm of its gradient.

    Attributes:
        by: `register_hook`, whose hook returns another gradient, or `register_post_accumulate_grad_hook`, whose hook
            changes `param.grad`.
    """

    by: str


@dataclass(frozen=True, repr=False)
class DropGradients(Event):
    """Register a post-accumulate-grad hook that sets `param.grad` to None, so that the parameters do not step."""

    params: tuple[str, ...]
