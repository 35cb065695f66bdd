"""Events that attach, run backward and step."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class Attach(Event):
    """Attach the assignments of the plan; every run does so after `Plan.before`.

    A further `Attach` is for a model that was rebuilt, copied or detached.
    """


@dataclass(frozen=True, repr=False)
class Backward(Event):
    """Run forward and backward on a new batch; afterwards the optimizers have stepped and gradients are freed.

    Attributes:
        skip: branches that this forward leaves out.
        scale: factor of the loss; 0 gives zero gradients, `inf` and `nan` give non-finite ones.
        inputs: parameters to compute gradients for, as in `loss.backward(inputs=…)`; empty for all.
        create_graph: as in `loss.backward(create_graph=…)`.
        inside: what backward runs inside of: `no_grad`, `inference_mode` or `compiled_autograd`; empty for nothing.
            Forward and the step of the standard loop are outside.
    """

    skip: tuple[str, ...] = ()
    scale: float = 1.0
    inputs: tuple[str, ...] = ()
    create_graph: bool = False
    inside: str = ""


@dataclass(frozen=True, repr=False)
class Accumulate(Event):
    """Accumulate gradients by forward and backward without a step. Belongs in `Plan.before`."""

    skip: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class StepByHand(Event):
    """Step the listed optimizers by hand and free the gradients, as without hooks."""


@dataclass(frozen=True, repr=False)
class StepAnother(Event):
    """Step a separate, ordinary optimizer over all parameters; there is no gradient for it."""
