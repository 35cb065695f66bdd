"""Events that use the autograd graph in other ways than one `loss.backward()` right after forward."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class Forward(Event):
    """Run forward alone, and keep the graph for `BackwardThrough`."""

    skip: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class BackwardThrough(Event):
    """Run backward through the graph of an earlier `Forward`, and step.

    Attributes:
        forward: index of the `Forward`, from 0.
        retain_graph: as in `loss.backward(retain_graph=…)`.
    """

    forward: int = 0
    retain_graph: bool = False


@dataclass(frozen=True, repr=False)
class ComputeGradients(Event):
    """Compute the gradients of all parameters without accumulating them.

    Attributes:
        by: `torch.autograd.grad` or `torch.func.grad`.
    """

    by: str = "torch.autograd.grad"


@dataclass(frozen=True, repr=False)
class FunctionalBackward(Event):
    """Run backward through `torch.func.functional_call` with the model's own parameters.

    Attributes:
        replaced: parameters that are passed as a copy, which is another leaf.
    """

    replaced: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class PenalizedBackward(Event):
    """Run backward of a loss with a gradient penalty: a double backward.

    Attributes:
        of: whether the penalty is on the gradient of the `inputs` or of the `parameters`.
    """

    of: str


@dataclass(frozen=True, repr=False)
class AutocastBackward(Event):
    """Run forward under autocast, then backward."""

    dtype: str


@dataclass(frozen=True, repr=False)
class Compile(Event):
    """Compile the model: `model.compile(backend=…)`."""

    backend: str
