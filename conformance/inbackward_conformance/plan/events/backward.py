"""Attachment, backward, and steps."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class Attach(Event):
    """Give the assignments of the plan to the parameters; every run begins so, after `Plan.before`.

    Once more it is for a model that is new, or detached.
    """


@dataclass(frozen=True, repr=False)
class Backward(Event):
    """Forward and backward over a fresh batch; afterwards the optimizers have stepped and gradients are freed.

    Attributes:
        skip: branches that this forward leaves out.
        scale: what the loss is multiplied by: 0 gives zero gradients, `inf` and `nan` non-finite ones.
        inputs: the parameters that backward is confined to; empty: all that it reaches.
        create_graph: whether the gradients get a graph of their own.
    """

    skip: tuple[str, ...] = ()
    scale: float = 1.0
    inputs: tuple[str, ...] = ()
    create_graph: bool = False


@dataclass(frozen=True, repr=False)
class Accumulate(Event):
    """Forward and backward without a step: gradients are left behind. Belongs to `Plan.before`."""

    skip: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class StepByHand(Event):
    """Step the listed optimizers by hand and free the gradients, as one does without hooks."""


@dataclass(frozen=True, repr=False)
class StepAnother(Event):
    """Step another, ordinary optimizer over all parameters: it finds no gradient to act on."""
