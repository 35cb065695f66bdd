"""An ordinary optimizer that is handed over: it stays the user's own object, and steps inside backward.

An adapter offers it as `hand_over(optimizer)`, which returns an object whose `remove()` undoes it. Schedulers and
checkpoints are those of the ordinary loop, and what such a loop calls after backward finds nothing to do.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR

from inbackward_conformance.accident import is_accidental
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.catalogue.custom_optimizers import (
    CountsCalls,
    DecaysAll,
    LineSearch,
    NoisyDescent,
    NormalizedDescent,
)
from inbackward_conformance.catalogue.models import Branches
from inbackward_conformance.checking.check import Check
from inbackward_conformance.outcome import BrokenPromise, Finding, NotOffered, Outcome
from inbackward_conformance.plan import Assignment
from inbackward_conformance.plan.need import ANOTHER_CLASS
from inbackward_conformance.plugin.optimizer_cases import optimizers
from inbackward_conformance.raised_error import text_of
from inbackward_conformance.training.compare import difference
from inbackward_conformance.training.trace import take_snapshot

SGD = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
OTHER_ADAMW = replace(ADAMW, need=ANOTHER_CLASS)

with_both = optimizers("assignment", [SGD, ADAMW])


class Twins:
    """A model whose optimizer is handed over after an ordinary step, and one that the standard loop trains.

    Attributes:
        model: the model.
        optimizer: its optimizer.
        ordinary_model: the other model.
        ordinary: its optimizer.
        handle: what undoes the hand-over.
    """

    def __init__(self, implementation: Implementation, device: str, assignment: Assignment) -> None:
        self._implementation = implementation
        optimizer_class, options = bind(implementation, assignment)
        self.model, self.ordinary_model = Branches().to(device), Branches().to(device)
        self.ordinary_model.load_state_dict(self.model.state_dict())
        self.optimizer, self.ordinary = (
            implementation.standard_optimizer(optimizer_class, model.parameters(), dict(options))
            for model in (self.model, self.ordinary_model)
        )
        self._steps = 0
        for model, optimizer in ((self.model, self.optimizer), (self.ordinary_model, self.ordinary)):
            step(model, [optimizer], 1)
        self.handle = implementation.hand_over(self.optimizer)

    def train(self, steps: int, after: Callable[[], object] = lambda: None) -> None:
        """Train both; `after` runs after each backward of the handed-over optimizer."""
        for _ in range(steps):
            self._steps += 1
            skip = ("left",) if self._steps == 2 else ()
            self._implementation.backward(loss_of(self.model, self._steps, skip), self.model)
            after()
            step(self.ordinary_model, [self.ordinary], self._steps, skip)

    def require_equal(self, when: str) -> None:
        """Require that parameters, gradients and states are those of the standard loop."""
        ordinary = (self.ordinary_model, [self.ordinary])
        require_equal(self._implementation, when, ordinary, (self.model, [self.optimizer]))


@pytest.mark.must
@pytest.mark.needs("hand_over")
@with_both
def test_same_object(implementation: Implementation, device: str, assignment: Assignment) -> None:
    """The optimizer that is listed, steps and keeps the state is the very object that was handed over."""
    twins = Twins(implementation, device, assignment)
    twins.train(3)
    listed = implementation.optimizers(twins.model)
    assert len(listed) == 1, f"{len(listed)} optimizers are listed, and one was handed over"
    assert listed[0] is twins.optimizer, "another optimizer is listed than was handed over"
    twins.require_equal("three steps")


@pytest.mark.must
@pytest.mark.needs("hand_over")
@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        (CosineAnnealingLR, {"T_max": 4}),
        (ExponentialLR, {"gamma": 0.5}),
        (OneCycleLR, {"max_lr": 0.1, "total_steps": 8, "cycle_momentum": False}),
    ],
    ids=["CosineAnnealingLR", "ExponentialLR", "OneCycleLR"],
)
def test_one_scheduler(implementation: Implementation, device: str, scheduler: Any, options: dict[str, Any]) -> None:
    """One scheduler of the optimizer, stepped after each backward, schedules every parameter."""
    twins = Twins(implementation, device, SGD)
    schedule, ordinary_schedule = (scheduler(each, **options) for each in (twins.optimizer, twins.ordinary))
    for number in range(1, 5):
        twins.train(1)
        schedule.step()
        ordinary_schedule.step()
        twins.require_equal(f"step {number}")


@pytest.mark.must
@pytest.mark.needs("hand_over")
@with_both
def test_checkpoint_for_the_ordinary_loop(implementation: Implementation, device: str, assignment: Assignment) -> None:
    """A checkpoint of the optimizer loads into an ordinary one, without conversion, and training goes on."""
    twins = Twins(implementation, device, assignment)
    twins.train(3)
    saved = through_a_file([twins.model.state_dict(), twins.optimizer.state_dict()])
    optimizer_class, options = bind(implementation, assignment)
    model = Branches().to(device)
    optimizer = implementation.standard_optimizer(optimizer_class, model.parameters(), dict(options))
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    twins.handle.remove()
    twins.model, twins.optimizer = model, optimizer
    step(model, [optimizer], 4)
    step(twins.ordinary_model, [twins.ordinary], 4)
    twins.require_equal("a step of the ordinary loop")


@pytest.mark.must
@pytest.mark.needs("hand_over")
@with_both
@pytest.mark.parametrize("by", ["load_state_dict", "torch.distributed.checkpoint"])
def test_checkpoint_of_the_ordinary_loop(
    implementation: Implementation, device: str, assignment: Assignment, by: str
) -> None:
    """A checkpoint of the ordinary optimizer loads after the hand-over, by its own method or by that of torch."""
    twins = Twins(implementation, device, assignment)
    stopped = Twins(implementation, device, assignment)
    stopped.train(3)
    stopped.ordinary.param_groups[0]["lr"] *= 0.5
    twins.ordinary_model, twins.ordinary = stopped.ordinary_model, stopped.ordinary
    twins.model.load_state_dict(through_a_file(stopped.ordinary_model.state_dict()))
    if by == "load_state_dict":
        twins.optimizer.load_state_dict(through_a_file(stopped.ordinary.state_dict()))
    else:
        saved = through_a_file(get_optimizer_state_dict(stopped.ordinary_model, stopped.ordinary))
        set_optimizer_state_dict(twins.model, twins.optimizer, optim_state_dict=saved)
    twins.train(3)
    twins.require_equal("three steps that follow the checkpoint")


@pytest.mark.must
@pytest.mark.needs("hand_over")
@with_both
def test_leftover_calls(implementation: Implementation, device: str, assignment: Assignment) -> None:
    """`step()` and `zero_grad()` that are left in the loop after backward change nothing."""
    twins = Twins(implementation, device, assignment)

    def leftover() -> None:
        twins.optimizer.step()
        twins.optimizer.zero_grad()

    twins.train(3, leftover)
    twins.require_equal("three steps, each followed by step() and zero_grad()")


@pytest.mark.must
@pytest.mark.needs("hand_over")
@with_both
def test_group_added_later(implementation: Implementation, device: str, assignment: Assignment) -> None:
    """A parameter group that `add_param_group` adds later trains with the others, with options of its own."""
    twins = Twins(implementation, device, assignment)
    twins.train(1)
    for model, optimizer in ((twins.model, twins.optimizer), (twins.ordinary_model, twins.ordinary)):
        model.register_parameter("offset", nn.Parameter(torch.zeros(3, device=device)))
        optimizer.add_param_group({"params": [model.get_parameter("offset")], "lr": 0.5})
    twins.train(2)
    twins.require_equal("two steps that follow add_param_group")


@pytest.mark.must
@pytest.mark.needs("hand_over")
@with_both
def test_removed(implementation: Implementation, device: str, assignment: Assignment) -> None:
    """`remove()` gives an ordinary optimizer back: backward leaves gradients, and `step()` goes on from its state."""
    twins = Twins(implementation, device, assignment)
    twins.train(3)
    twins.handle.remove()
    for model, optimizer in ((twins.model, twins.optimizer), (twins.ordinary_model, twins.ordinary)):
        loss_of(model, 4).backward()
        missing = [name for name, param in model.named_parameters() if param.grad is None]
        assert not missing, f"backward still frees the gradient of {missing[0]} after remove()"
        optimizer.step()
        optimizer.zero_grad()
    twins.require_equal("an ordinary step that follows remove()")
    listed = len(implementation.optimizers(twins.model))
    assert not listed, f"{listed} optimizers are listed after remove()"


@pytest.mark.must
@pytest.mark.needs("hand_over")
@pytest.mark.may_refuse("at attachment")
@pytest.mark.parametrize(
    "optimizer_class",
    [CountsCalls, NormalizedDescent, NoisyDescent, DecaysAll],
    ids=lambda optimizer_class: str(optimizer_class.__name__),
)
def test_mixed_parameters(check: Check, implementation: Implementation, device: str, optimizer_class: Any) -> None:
    """A class whose step of a parameter depends on others gives the standard result, or is refused when handed over.

    It counts its calls, takes a norm over all gradients, draws random numbers, or moves parameters without gradient.
    """
    model, ordinary_model = Branches().to(device), Branches().to(device)
    ordinary_model.load_state_dict(model.state_dict())
    before = take_snapshot("the hand-over", model, None)
    optimizer, ordinary = (optimizer_class(each.parameters()) for each in (model, ordinary_model))
    what = f"a {optimizer_class.__name__} that is handed over"
    try:
        implementation.hand_over(optimizer)
    except NotOffered:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        if is_accidental(error):
            raise AssertionError(f"an accident, not a refusal, for {what}: {text_of(error)}") from error
        changed = difference(before, take_snapshot("the hand-over", model, None))
        if changed:
            raise BrokenPromise(changed) from error
        check.findings.append(Finding(Outcome.REFUSES, f"{what} is refused: {error}"))
        return
    for number in range(1, 4):
        skip = ("left",) if number == 2 else ()
        with torch.random.fork_rng():
            torch.manual_seed(number)
            implementation.backward(loss_of(model, number, skip), model)
        with torch.random.fork_rng():
            torch.manual_seed(number)
            step(ordinary_model, [ordinary], number, skip)
    require_equal(implementation, f"three steps by {what}", (ordinary_model, [ordinary]), (model, [optimizer]))


@pytest.mark.must
@pytest.mark.needs("hand_over")
def test_closure(check: Check, implementation: Implementation, device: str) -> None:
    """An optimizer whose `step` needs a closure is refused at the hand-over: a closure runs backward itself."""
    model = Branches().to(device)
    with check.rejected(model, "an optimizer whose step needs a closure"):
        implementation.hand_over(LineSearch(model.parameters()))


@pytest.mark.must
@pytest.mark.needs("hand_over")
def test_two_optimizers(implementation: Implementation, device: str) -> None:
    """Two optimizers that have parameters in common step them in the order in which they were handed over."""
    model, ordinary_model = Branches().to(device), Branches().to(device)
    ordinary_model.load_state_dict(model.state_dict())
    choices = [bind(implementation, assignment) for assignment in (SGD, OTHER_ADAMW)]
    handed, ordinary = (
        [
            implementation.standard_optimizer(
                optimizer_class, [*each.trunk.parameters(), *branch.parameters()], dict(options)
            )
            for (optimizer_class, options), branch in zip(choices, (each.left, each.right), strict=True)
        ]
        for each in (model, ordinary_model)
    )
    for optimizer in handed:
        implementation.hand_over(optimizer)
    for number in range(1, 4):
        implementation.backward(loss_of(model, number), model)
        step(ordinary_model, ordinary, number)
    require_equal(implementation, "two optimizers", (ordinary_model, ordinary), (model, handed))


def step(model: nn.Module, optimizers: list[torch.optim.Optimizer], number: int, skip: tuple[str, ...] = ()) -> None:
    """Run one step of the standard loop."""
    loss_of(model, number, skip).backward()
    for optimizer in optimizers:
        optimizer.step()
    for optimizer in optimizers:
        optimizer.zero_grad()


def require_equal(
    implementation: Implementation,
    when: str,
    ordinary: tuple[nn.Module, list[torch.optim.Optimizer]],
    handed: tuple[nn.Module, list[torch.optim.Optimizer]],
) -> None:
    """Require that parameters, gradients and states of a model are those that the standard loop has."""
    expected, found = (take_snapshot(when, *each, implementation.state_of) for each in (ordinary, handed))
    finding = difference(expected, found, implementation.declared.rounding.size)
    if finding:
        raise BrokenPromise(finding)


def through_a_file(state: Any) -> Any:
    """Return a copy that was saved and loaded."""
    file = io.BytesIO()
    torch.save(state, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def loss_of(model: nn.Module, number: int, skip: tuple[str, ...] = ()) -> Tensor:
    """Return the loss of a batch."""
    device = next(model.parameters()).device
    features = torch.linspace(-1, 1, 12, device=device).reshape(3, 4) * number
    offset = model.get_parameter("offset") if "offset" in dict(model.named_parameters()) else 0.0
    loss: Tensor = (model(features, skip=skip) + offset).square().mean()
    return loss
