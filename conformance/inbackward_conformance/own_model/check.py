"""Checks whether optimizer in backward is exact on a model of one's own: trains it by both methods, and compares."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from inbackward_conformance.adapters.find import find_implementation, require_usable
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.catalogue.optimizers import find_optimizer_class
from inbackward_conformance.outcome import CONFORMS, Finding, NotOffered, NotRun, Outcome, Refusal
from inbackward_conformance.own_model.result import TrainingResult
from inbackward_conformance.own_model.run import peak_of_gradients, train_model
from inbackward_conformance.own_model.standard import Standard, run_again, run_standard
from inbackward_conformance.own_model.task import Task
from inbackward_conformance.own_model.unusable import UnusableModel
from inbackward_conformance.raised_error import is_observation
from inbackward_conformance.training.classify_error import classify_error
from inbackward_conformance.training.compare import compare
from inbackward_conformance.training.in_backward import InBackward

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn
    from torch.optim import Optimizer

    from inbackward_conformance.own_model.run import Trained
    from inbackward_conformance.own_model.task import ComputeLoss
    from inbackward_conformance.training.trace import Raised


def check_training(
    build_model: Callable[[], nn.Module],
    compute_loss: ComputeLoss,
    optimizer_class: type[Optimizer],
    options: Mapping[str, Any] | None = None,
    *,
    implementation: Any,
    params: Callable[[nn.Module], Any] | None = None,
    steps: int = 5,
    seed: int = 0,
    device: str = "",
) -> TrainingResult:
    """Train a model of one's own by the standard loop and by an implementation, and compare them after each step.

    Parameters, buffers, gradients and optimizer states are compared bit by bit, unless the adapter declares more
    rounding. Every run starts with the same random numbers; the caller's are restored afterwards.

    Args:
        build_model: returns a new model on each call.
        compute_loss: called as `compute_loss(model, step)`, with steps counted from 0; returns the loss, a tensor of
            one number. Choose the batch by `step`.
        optimizer_class: the class of the optimizer.
        options: its keyword arguments.
        implementation: a registered name, `package.module:attribute` or `package.module`; or the class, the instance or
            the module itself.
        params: returns the parameters or groups for the optimizer, given the model; `model.parameters()` by default.
        steps: the number of steps.
        seed: the seed of torch, Python and NumPy.
        device: where to move the model; by default, it stays where it was built.

    Raises:
        UnusableModel: nothing can be compared, as the standard loop itself raises, trains nothing, or trains
            differently each time; the message names the remedy.
        UnusableImplementation: there is no such implementation, or it lacks a required call.
        TypeError: an argument is of the wrong type.
        ValueError: an argument has the wrong value.
    """

    def build() -> Any:
        model = build_model()
        return (model, compute_loss) if params is None else (model, compute_loss, params(model))

    if not callable(build_model):
        raise TypeError(f"build_model={build_model!r}: expected a function that returns a new model")
    name, target = _named(implementation)
    (result,) = check_task(Task(build, optimizer_class, options or {}, steps, seed, device), {name: target})
    return result


def check_task(task: Task, implementations: Mapping[str, Any]) -> Sequence[TrainingResult]:
    """Return one result for each implementation; the standard loop is run once for all that have none of their own.

    Raises:
        UnusableModel: nothing can be compared.
    """
    check = _Check(task)
    results = [check(name, target) for name, target in implementations.items()]
    raised = check.standard_raised
    if raised and all(result.equal for result in results):  # they raise as well, which is as it should be
        what = f"the standard loop itself raises, so nothing can be compared: {raised.event} raises {raised.text}"
        raise UnusableModel(what) from check.standard_error
    return results


class _Check:
    """Checks implementations with one task.

    Attributes:
        standard_raised: where and how the standard loop has raised; None if it has not.
        standard_error: the error.
    """

    def __init__(self, task: Task) -> None:
        self.standard_raised: Raised | None = None
        self.standard_error: BaseException | None = None
        self._task = task
        self._shared: Standard | None = None

    def __call__(self, name: str, target: Any) -> TrainingResult:
        """Check one implementation."""
        try:
            implementation = Implementation(target)
            _require_class(implementation, self._task)
            standard = self._standard(implementation)
            observed = train_model(self._task, InBackward(implementation))
            finding = self._compare(standard.trained, observed, implementation)
            gradient_bytes = None if observed.error else self._gradient_bytes(target)
        except UnusableModel:
            raise
        except BaseException as error:
            if not is_observation(error):
                raise
            finding = classify_error(error)
            return TrainingResult(name, finding.outcome, finding.detail)
        return TrainingResult(name, finding.outcome, finding.detail, gradient_bytes, standard.gradient_bytes)

    def _standard(self, implementation: Implementation) -> Standard:
        own = implementation.has_own_standard_loop
        standard = self._shared if self._shared and not own else run_standard(self._task, implementation)
        if not own:
            self._shared = standard
        if standard.trained.trace.raised:
            self.standard_raised, self.standard_error = standard.trained.trace.raised, standard.trained.error
        required = implementation.declared.requires_device
        if required and standard.trained.devices != {required}:
            raise NotRun(f"it requires {required}, and the model is on {', '.join(standard.trained.devices)}")
        return standard

    def _compare(self, standard: Trained, observed: Trained, implementation: Implementation) -> Finding:
        rounding = implementation.declared.rounding
        finding = compare(standard.trace, observed.trace, Refusal.LATE, rounding.size)
        if not finding.passed:
            run_again(self._task, implementation, standard)  # a rare difference between kernels may be to blame
        if finding != CONFORMS:
            return finding
        how = f"up to {rounding.size:g}, as it declares ({rounding.reason})" if rounding.size else "bit by bit"
        steps = "one step" if self._task.steps == 1 else f"each of {self._task.steps} steps"
        detail = f"equal to the standard loop, {how}, after {steps}"
        if any(snapshot.states is None for snapshot in observed.trace.snapshots):
            detail += "; optimizer states are not compared, since it lists no optimizers"
        return Finding(Outcome.CONFORMS, detail)

    def _gradient_bytes(self, target: Any) -> int | None:
        """Return the peak of the gradients; None if the implementation fails where their hooks are."""
        try:
            return peak_of_gradients(self._task, InBackward(Implementation(target)))
        except BaseException as error:  # what it trains was compared before
            if not is_observation(error):
                raise
            return None


def _require_class(implementation: Implementation, task: Task) -> None:
    """Require that an implementation with optimizer classes of its own declares that of the task.

    Raises:
        NotOffered: it declares others.
        NotRun: its steps draw random numbers, so it cannot be compared.
    """
    own = implementation.declared.own_optimizers
    declared = [entry for entry in own if find_optimizer_class(entry.name) is task.optimizer_class]
    if own and not declared:
        names = ", ".join(entry.name for entry in own)
        raise NotOffered(f"it steps optimizer classes of its own: {names}")
    if any(entry.draws_random_numbers for entry in declared):
        raise NotRun("a step of this optimizer draws random numbers, and parameters step in another order in backward")


def _named(implementation: Any) -> tuple[str, Any]:
    """Return the name of an implementation, and what it is.

    Raises:
        UnusableImplementation: there is no such implementation, or it lacks a required call.
    """
    if isinstance(implementation, str):
        return implementation, find_implementation(implementation)
    has_name = inspect.isclass(implementation) or inspect.ismodule(implementation)
    name = (implementation if has_name else type(implementation)).__name__
    require_usable(implementation, f"implementation {name!r}")
    return name, implementation
