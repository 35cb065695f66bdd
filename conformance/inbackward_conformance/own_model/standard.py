"""Trains a model by the standard loop, and makes sure that it trains alike each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inbackward_conformance.own_model.run import peak_of_gradients, train_model
from inbackward_conformance.own_model.unusable import NotDeterministic, UnusableModel
from inbackward_conformance.tensors import same_bits
from inbackward_conformance.training.compare import compare, difference
from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.trace import Trace

if TYPE_CHECKING:
    from inbackward_conformance.adapters.implementation import Implementation
    from inbackward_conformance.own_model.run import Trained
    from inbackward_conformance.own_model.task import Task

OF_BUILD = """\
`build` has to make the same model each time. Random numbers of torch, Python and NumPy may be drawn, since they are \
seeded before; load other values from a file, not from a model that was trained meanwhile"""

OF_TRAINING = """\
Dropout and other random numbers of torch, Python and NumPy are no obstacle, since they are seeded before the first \
step. For all else: load the data once, outside, and choose the batch by `step`; seed a generator of your own in \
`build`; keep no values from run to run; and where kernels are to blame, as on an accelerator, call \
torch.use_deterministic_algorithms(True)"""


@dataclass(frozen=True)
class Standard:
    """What the standard loop has done with a model.

    Attributes:
        trained: its first training.
        gradient_bytes: the largest number of bytes in gradients at any time; None if it raises.
    """

    trained: Trained
    gradient_bytes: int | None


def run_standard(task: Task, implementation: Implementation) -> Standard:
    """Train by the standard loop, twice.

    Raises:
        UnusableModel: it trains nothing, or `build` or `compute_loss` cannot be used.
        NotDeterministic: both trainings differ.
    """
    first = train_model(task, StandardLoop(implementation))
    run_again(task, implementation, first)
    if first.trace.raised:
        return Standard(first, None)
    gradient_bytes = peak_of_gradients(task, StandardLoop(implementation))
    last = first.trace.snapshots[-1].params
    if not gradient_bytes:
        raise UnusableModel("no parameter has a gradient: compute the loss with the model that compute_loss is passed")
    if all(same_bits(value, last[name]) for name, value in first.trace.start.params.items()):
        raise UnusableModel(
            f"no parameter changes in {task.steps} steps of the standard loop, so nothing can differ: check the "
            f"learning rate"
        )
    return Standard(first, gradient_bytes)


def run_again(task: Task, implementation: Implementation, first: Trained) -> None:
    """Train by the standard loop once more.

    Raises:
        NotDeterministic: it differs from the first time.
        UnusableModel: `build` returned a parameter of the first time.
    """
    again = train_model(task, StandardLoop(implementation))
    for name, param in again.params.items():
        if name in first.params and first.params[name]() is param() is not None:
            raise UnusableModel(f"build returned parameter {name!r} for a second time: make a new model on each call")
    of_build = difference(first.trace.start, again.trace.start)
    how = of_build.detail if of_build else _first_difference(first.trace, again.trace)
    if how:
        raise NotDeterministic(
            f"the model is not deterministic, so nothing can be compared. In two runs of the standard loop with the "
            f"same seed, {how.replace(' from the standard loop', '')}. {OF_BUILD if of_build else OF_TRAINING}"
        )


def _first_difference(first: Trace, again: Trace) -> str:
    """Return where two runs of the standard loop differ first; empty if they are equal."""
    finding = compare(_without_error(first), _without_error(again))
    if not finding.passed:
        return finding.detail
    if first.raised and again.raised and len(first.snapshots) == len(again.snapshots):
        return ""
    raised = [trace.raised for trace in (first, again) if trace.raised]
    return f"one of them alone raises in {raised[0].event}: {raised[0].text}" if raised else ""


def _without_error(trace: Trace) -> Trace:
    """Return the part of a trace before the event that raised."""
    return Trace(trace.start, trace.snapshots[:-1] if trace.raised else trace.snapshots)
