"""What is done with the graph of a forward, beside `loss.backward()` once and at once."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class Forward(Event):
    """Forward alone; the graph is kept for `BackwardThrough`."""

    skip: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class BackwardThrough(Event):
    """Backward through the graph that a `Forward` has kept, and a step.

    Attributes:
        forward: which of them, counted from 0.
        retain_graph: whether another backward goes through it later.
    """

    forward: int = 0
    retain_graph: bool = False


@dataclass(frozen=True, repr=False)
class ComputeGradients(Event):
    """Compute the gradients of all parameters, and do nothing with them.

    Attributes:
        by: `torch.autograd.grad` or `torch.func.grad`.
    """

    by: str = "torch.autograd.grad"


@dataclass(frozen=True, repr=False)
class FunctionalBackward(Event):
    """Backward of `torch.func.functional_call` with the model's own parameters.

    Attributes:
        replaced: parameters in whose place it is called with a copy, a leaf of its own.
    """

    replaced: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class PenalizedBackward(Event):
    """Backward of a loss to which the square of a gradient is added: a backward through a backward.

    Attributes:
        of: whether that is the gradient of the `inputs` or of the `parameters`.
    """

    of: str


@dataclass(frozen=True, repr=False)
class AutocastBackward(Event):
    """Backward of a forward that ran under autocast."""

    dtype: str


@dataclass(frozen=True, repr=False)
class Compile(Event):
    """Compile the model from here on: `model.compile(backend=…)`."""

    backend: str
