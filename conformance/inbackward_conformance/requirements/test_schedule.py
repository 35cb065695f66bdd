"""Learning rates and other options that change during training, by hand or by a scheduler."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.optim.lr_scheduler import ExponentialLR

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.catalogue.models import MLP
from inbackward_conformance.catalogue.schedulers import METRIC, momentum_schedulers, schedulers, watches_metric
from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan, TensorOption
from inbackward_conformance.plan.events import Backward, Power, Scheduler, SetOption, StartSchedule, StepSchedules
from inbackward_conformance.plan.need import SCHEDULED
from inbackward_conformance.plugin.optimizer_cases import optimizers
from inbackward_conformance.tensors import close, describe_difference, same_bits

SGD = Assignment("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01})
ADAMW = Assignment("AdamW", {"lr": 0.1, "weight_decay": 0.1})
SCHEDULED_SGD = Assignment("SGD", {"lr": 1.0}, need=SCHEDULED)
BIASES = ("0.bias", "2.bias", "4.bias")
EIGHT_EPOCHS = (Backward(), StepSchedules()) * 8

with_both = optimizers("assignment", [SGD, ADAMW])


def _name(scheduler: Scheduler) -> str:
    return scheduler.name + ("-momentum" if "base_momentum" in scheduler.options else "")


def _scheduled(assignment: Assignment, scheduler: Scheduler) -> Plan:
    step = StepSchedules(METRIC) if watches_metric(scheduler) else StepSchedules()
    return Plan("MLP", (assignment,), (StartSchedule(scheduler), *(Backward(), step) * 8))


@pytest.mark.must
@with_both
def test_set_by_hand(check: Check, assignment: Assignment) -> None:
    """A learning rate or weight decay that is set by hand in `param_groups` takes effect at the next step."""
    events = (
        Backward(),
        SetOption("lr", 0.02),
        Backward(),
        SetOption("weight_decay", 0.5),
        Backward(),
        SetOption("lr", 0.0),
        Backward(),
        SetOption("lr", 0.1),
        Backward(),
    )
    check(Plan("MLP", (assignment,), events))


@pytest.mark.must
def test_set_by_hand_for_some(check: Check) -> None:
    """A learning rate set in the groups that hold the biases leaves the weights at theirs."""
    weights = Assignment("SGD", SGD.options, ("0.weight", "2.weight", "4.weight"))
    biases = Assignment("AdamW", ADAMW.options, BIASES)
    check(Plan("MLP", (weights, biases), (Backward(), SetOption("lr", 0.5, BIASES), Backward(), Backward())))


@pytest.mark.must
@pytest.mark.parametrize("scheduler", list(schedulers()), ids=_name)
def test_every_scheduler(check: Check, scheduler: Scheduler) -> None:
    """Every public class of `torch.optim.lr_scheduler` gives the steps that it gives in the standard loop.

    It is built by the implementation's `schedule`: by default one for each of the listed optimizers.
    """
    check(_scheduled(SGD, scheduler))


@pytest.mark.must
@pytest.mark.parametrize("scheduler", list(schedulers()), ids=_name)
def test_tensor_lr(check: Check, scheduler: Scheduler) -> None:
    """A learning rate that is a tensor is scheduled like one that is a number.

    Schedulers change such a tensor in place: optimizers that have it in common see each change once for each of them.
    """
    check(_scheduled(Assignment("SGD", SGD.options | {"lr": TensorOption(0.1)}), scheduler))


@pytest.mark.must
@pytest.mark.parametrize("scheduler", momentum_schedulers(), ids=_name)
@with_both
def test_momentum_and_betas(check: Check, assignment: Assignment, scheduler: Scheduler) -> None:
    """Momentum, and betas, that a scheduler cycles (CyclicLR, OneCycleLR) take effect at the next step."""
    check(_scheduled(assignment, scheduler))


@pytest.mark.must
def test_optimizers_that_step(implementation: Implementation, device: str) -> None:
    """The optimizers that step inside backward are those that a scheduler drives, with the learning rate it has set."""
    optimizer_class, options = bind(implementation, SCHEDULED_SGD)
    model = MLP().to(device)
    ordinary_models = [copy.deepcopy(model) for _ in range(2)]
    implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    ordinary = [
        implementation.standard_optimizer(optimizer_class, each.parameters(), dict(options)) for each in ordinary_models
    ]
    schedules = implementation.schedule(model, ExponentialLR, gamma=0.5)
    scheduled = ExponentialLR(ordinary[0], gamma=0.5)
    for _ in range(3):
        features = torch.randn(2, 4, device=device)
        implementation.backward(model(features).sum(), model)
        for each, optimizer in zip(ordinary_models, ordinary, strict=True):
            each(features).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        triples = zip(model.named_parameters(), *(each.parameters() for each in ordinary_models), strict=True)
        for (name, param), expected, without in triples:
            if not close(expected, param, implementation.declared.rounding.size):
                assert not same_bits(without, param), f"{name} is stepped as if the scheduler had set nothing"
                how = describe_difference(expected, param)
                raise AssertionError(f"{name} differs from the standard loop under the same schedule: {how}")
        scheduled.step()
        for schedule in schedules:
            schedule.step()


@pytest.mark.must
@pytest.mark.parametrize("model", ["MLP", "TiedTransformer"])
def test_started_in_training(check: Check, model: str) -> None:
    """A schedule that starts in mid-training takes effect from there on."""
    events = (Backward(), Backward(), StartSchedule(Scheduler("LambdaLR", {"lr_lambda": Power(0.5)})), *EIGHT_EPOCHS)
    check(Plan(model, (ADAMW,), events))


@pytest.mark.must
def test_different_schedules(check: Check) -> None:
    """Assignments to different submodules follow different schedules, or none."""
    assignments = (
        Assignment("SGD", SGD.options, ("0.weight", "0.bias")),
        Assignment("AdamW", ADAMW.options, ("2.weight", "2.bias")),
        Assignment("SGD", SGD.options, ("4.weight", "4.bias")),
    )
    events = (
        StartSchedule(Scheduler("StepLR", {"step_size": 2, "gamma": 0.1}), "0"),
        StartSchedule(Scheduler("CosineAnnealingLR", {"T_max": 4}), "2"),
        *EIGHT_EPOCHS,
    )
    check(Plan("MLP", assignments, events))


@pytest.mark.must
@optimizers("assignments", [(SGD, ADAMW), (ADAMW, ADAMW)])
def test_two_optimizers(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """One schedule over a model drives every optimizer of each parameter."""
    check(Plan("MLP", assignments, (StartSchedule(Scheduler("ExponentialLR", {"gamma": 0.7})), *EIGHT_EPOCHS)))
