"""Trains a model of one's own by one method, step by step."""

from __future__ import annotations

import warnings
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inbackward_conformance.own_model.place import place_of
from inbackward_conformance.own_model.task import kind_of
from inbackward_conformance.own_model.unusable import UnusableModel
from inbackward_conformance.storages import GradientBytes
from inbackward_conformance.training.after_refusal import look_for_what_is_left
from inbackward_conformance.training.global_state import restored_settings
from inbackward_conformance.training.random_numbers import restored_random_numbers, seed_all_random_numbers
from inbackward_conformance.training.recording import record
from inbackward_conformance.training.trace import Trace, take_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from inbackward_conformance.own_model.task import Task
    from inbackward_conformance.training.in_backward import InBackward
    from inbackward_conformance.training.standard_loop import StandardLoop


class ModelRun:
    """One training of a new model.

    Attributes:
        made: what `build` has returned.
        trace: the trace so far.
        error: the error that has ended the training, if any.
    """

    def __init__(self, task: Task, method: StandardLoop | InBackward) -> None:
        self._task = task
        self._method = method
        self._phase = ""
        self.made = task.make()
        self.trace = Trace(take_snapshot("build", self.made.model, []))
        self.error: BaseException | None = None

    def attach(self) -> None:
        """Attach the optimizer."""
        self._method.attach(self.made.model, [self._task.assignment(self.made)])

    def step(self, number: int) -> None:
        """Compute the loss and run backward, in which the optimizer steps, or after which."""
        self._method.backward(self.made.model, partial(self.loss, number))

    def record(self, event: str, action: Callable[[], object], *, attaching: int = 0) -> None:
        """Do an action, and add a snapshot or an error to the trace."""
        self._phase = ""
        record(
            self.trace,
            event,
            partial(self._noting_errors, action),
            lambda: self.made.model,
            self._method,
            attaching=attaching,
        )
        if isinstance(self.error, UnusableModel):
            raise self.error
        if self.trace.raised and self.error and self._phase:
            where = ", ".join(filter(None, (self._phase, place_of(self.error))))
            self.trace.raised = replace(self.trace.raised, text=f"{self.trace.raised.text} ({where})")

    def _noting_errors(self, action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException as error:
            self.error = error
            raise

    def loss(self, step: int) -> Tensor:
        """Return the loss of a step.

        Raises:
            UnusableModel: `compute_loss` returned something else, or ran backward.
        """
        self._phase = "in compute_loss"
        before = self._with_gradient()
        loss: Any = self.made.compute_loss(self.made.model, step)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else kind_of(loss)
            raise UnusableModel(f"compute_loss returned {what} in step {step}: expected a loss, a tensor of one number")
        if not loss.requires_grad:
            raise UnusableModel(
                f"compute_loss returned a loss without a graph in step {step}: compute it with the model that is "
                f"passed, without torch.no_grad() or detach()"
            )
        if self._with_gradient() - before:
            raise UnusableModel(
                f"compute_loss runs backward in step {step}: return the loss, for several batches the sum of theirs, "
                f"and leave backward to the check"
            )
        self._phase = "in backward or a step of the optimizer"
        return loss

    def _with_gradient(self) -> set[str]:
        return {name for name, param in self.made.model.named_parameters() if param.grad is not None}


@dataclass(frozen=True)
class Trained:
    """What one training has left, without the model.

    Attributes:
        trace: its trace.
        error: the error that has ended it, if any.
        params: weak references to the parameters that were trained, by name.
        devices: the kinds of device that they were on.
    """

    trace: Trace
    error: BaseException | None
    params: dict[str, weakref.ref[nn.Parameter]]
    devices: frozenset[str]


def train_model(task: Task, method: StandardLoop | InBackward) -> Trained:
    """Train by `method`, with a snapshot after each step, up to the first error.

    Every run has the same random numbers. The states of all generators and the global settings are restored afterwards.

    Raises:
        UnusableModel: `build` or `compute_loss` cannot be used.
    """
    with _same_conditions(task):
        run = ModelRun(task, method)
        run.record(task.attaching, run.attach, attaching=1)
        _seed(task)
        look_for_what_is_left(run.trace, run.made.model, partial(run.loss, 0))
        for number in range(task.steps):
            if not run.trace.raised:
                run.record(f"step {number}", partial(run.step, number))
    params = {name: param for name, param in run.made.model.named_parameters() if param.requires_grad}
    devices = frozenset(param.device.type for param in params.values())
    return Trained(run.trace, run.error, {name: weakref.ref(param) for name, param in params.items()}, devices)


def peak_of_gradients(task: Task, method: StandardLoop | InBackward) -> int:
    """Train by `method`, and return the largest number of bytes in gradients at any time.

    In a training of its own, so that the hooks that count are not there where parameters are compared.
    """
    with _same_conditions(task):
        run = ModelRun(task, method)
        run.attach()
        gradients = GradientBytes(param for param in run.made.model.parameters() if param.requires_grad)
        _seed(task)
        with gradients:
            for number in range(task.steps):
                run.step(number)
    return gradients.peak


@contextmanager
def _same_conditions(task: Task) -> Iterator[None]:
    with restored_settings():
        warnings.simplefilter("ignore")
        with restored_random_numbers(), torch.enable_grad():
            _seed(task)
            yield


def _seed(task: Task) -> None:
    seed_all_random_numbers(task.seed, task.device or "any")
