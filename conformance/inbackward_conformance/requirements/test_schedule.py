"""Learning rates and other options that change during training, by hand or by a scheduler."""

from __future__ import annotations

import pytest
import torch

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.catalogue.models import MLP
from inbackward_conformance.catalogue.schedulers import METRIC, momentum_schedulers, schedulers, watches_metric
from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan, TensorOption
from inbackward_conformance.plan.events import Backward, Power, Scheduler, SetOption, StartSchedule, StepSchedules

SGD = Assignment("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01})
ADAMW = Assignment("AdamW", {"lr": 0.1, "weight_decay": 0.1})
BIASES = ("0.bias", "2.bias", "4.bias")
EIGHT_EPOCHS = (Backward(), StepSchedules()) * 8

with_both = pytest.mark.parametrize("assignment", [SGD, ADAMW], ids=["SGD", "AdamW"])


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
    model = MLP().to(device)
    implementation.attach(model, [(torch.optim.SGD, model.parameters(), {"lr": 1.0}, True)])
    stepped: dict[int, float] = {}

    def remember(optimizer: torch.optim.Optimizer, *_: object) -> None:
        stepped.update((id(param), group["lr"]) for group in optimizer.param_groups for param in group["params"])

    for optimizer in implementation.optimizers(model):
        optimizer.register_step_pre_hook(remember)
    schedules = implementation.schedule(model, torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    for expected in (1.0, 0.5, 0.25):
        stepped.clear()
        implementation.backward(model(torch.randn(2, 4, device=device)).sum(), model)
        for name, param in model.named_parameters():
            assert id(param) in stepped, f"no listed optimizer of {name} stepped inside backward"
            lr = stepped[id(param)]
            assert lr == expected, f"{name} is stepped with lr {lr}, and the scheduler has set {expected}"
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
@pytest.mark.parametrize("assignments", [(SGD, ADAMW), (ADAMW, ADAMW)], ids=["SGD-AdamW", "AdamW-AdamW"])
def test_two_optimizers(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """One schedule over a model drives every optimizer of each parameter."""
    check(Plan("MLP", assignments, (StartSchedule(Scheduler("ExponentialLR", {"gamma": 0.7})), *EIGHT_EPOCHS)))
