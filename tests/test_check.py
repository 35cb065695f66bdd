"""What a check passes, and what the standard loop does that it compares with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import inbackward
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.catalogue.optimizer_configurations import (
    MODEL_FOR,
    closure_free_optimizer_names,
    configurations,
)
from inbackward_conformance.checking.check import Check
from inbackward_conformance.outcome import NotRun, Outcome, Refusal
from inbackward_conformance.plan import ALL, Assignment, Plan, Ranks
from inbackward_conformance.plan.events import AttachMore, Backward, Load, Save, SaveSharded
from inbackward_conformance.ranks.job import Answer, Job
from inbackward_conformance.ranks.on_ranks import OnRanks
from inbackward_conformance.specification import specification
from inbackward_conformance.tensors import same_bits
from inbackward_conformance.training.compare import compare
from inbackward_conformance.training.run import TrainingRun
from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.trace import Raised, Snapshot, Trace
from inbackward_conformance.training.train import train
from mutants.naive import Naive

RAISES = Assignment("SGD", {"lr": 0.1, "differentiable": True})
STEPPED = "The gradient came twice, and the parameter was already stepped. Pass use_reentrant=False."
SILENT = "one of the variables needed for gradient computation has been modified by an inplace operation"

THREE = (Backward(),) * 3
NAMES = closure_free_optimizer_names()
WITH_DROPOUT = [(name, "TiedTransformer", ALL) for name in NAMES if name not in MODEL_FOR]


@pytest.fixture
def check() -> Check:
    return Check(Implementation(inbackward), specification()["gradients/freed"], "cpu")


def test_agreeing_with_a_standard_loop_that_raises_needs_to_be_meant(check: Check) -> None:
    plan = Plan("MLP", (RAISES,), (Backward(),))
    with pytest.raises(RuntimeError, match=r"the plan proves nothing, .* RuntimeError: a leaf"):
        check(plan)
    check(plan, standard_may_raise=True)
    assert [finding.outcome for finding in check.findings] == [Outcome.CONFORMS]


def test_a_mistake_in_a_plan_is_never_agreement(check: Check) -> None:
    plan = Plan("MLP", (Assignment("SGD", {"lr": 0.1}, ("9.weight",)),), (Backward(),))
    with pytest.raises(RuntimeError, match=r"the plan proves nothing, .* AttributeError: .*9"):
        check(plan, standard_may_raise=True)
    assert check.findings == []


def test_what_the_standard_loop_cannot_step_on_this_device_is_meant(check: Check) -> None:
    """Capturable on CPU, say: torch raises an AssertionError, and that is what agreement is about."""
    for configuration in configurations():
        if configuration.kind == "capturable" and configuration.optimizer in {"Adam", "ASGD"}:
            plan = Plan(configuration.model, (configuration.assignment,), (Backward(),))
            check(plan, standard_may_raise=configuration.standard_may_raise)
    assert [finding.outcome for finding in check.findings] == [Outcome.CONFORMS] * 2


class Asked:
    """Ranks that keep the jobs that they are to run, and run none."""

    def __init__(self, world_size: int | None) -> None:
        self.world_size = world_size
        self.jobs: list[Job] = []

    def run(self, job: Job) -> list[Answer]:
        self.jobs.append(job)
        raise NotRun("nothing")


def body(*_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("available", "of_two", "of_three"),
    [(None, 2, 3), (2, 2, 3), (4, 2, 3), (7, 2, 3), (8, 4, 6), (64, 32, 48)],
)
def test_on_a_larger_cluster_cases_have_more_ranks(available: int | None, of_two: int, of_three: int) -> None:
    """In proportion to the four that a plan may have on one machine; a plan says how many it was run with."""
    asked = Asked(available)
    ranks = OnRanks(asked, "reference", "cpu", 1.0)
    check = Check(Implementation(inbackward), specification()["ddp/equality"], "cpu", ranks=ranks)
    sgd = Assignment("SGD", {"lr": 0.1})
    with pytest.raises(NotRun):
        check(Plan("MLP", (sgd,), (Backward(),), ranks=Ranks(2)))
    for fixed in (False, True):
        with pytest.raises(NotRun):
            check.on_ranks(3, body, fixed=fixed)
    assert [job.world_size for job in asked.jobs] == [of_two, of_three, 3]
    assert check.plan == asked.jobs[0].arguments[1]
    assert check.plan
    assert check.plan.ranks == Ranks(of_two)


def test_a_folder_that_a_rank_does_not_see_is_no_failure(check: Check) -> None:
    """Ranks of other machines see nothing of a local one: the case was not run."""
    plan = Plan("MLP", (Assignment("SGD", {"lr": 0.1}),), (Backward(), SaveSharded("nowhere")))
    with pytest.raises(NotRun, match=r"rank 0 does not see nowhere: .* --basetemp"):
        check(plan)


@pytest.mark.parametrize(
    ("message", "stepped", "may_refuse", "outcome", "detail"),
    [
        (STEPPED, True, Refusal.LATE, Outcome.REFUSES, ""),
        (SILENT, False, Refusal.LATE, Outcome.REFUSES, ""),
        (SILENT, True, Refusal.LATE, Outcome.FAILS, "without a word of the parameters already stepped: weight"),
        (
            "",
            False,
            Refusal.LATE,
            Outcome.FAILS,
            "an accident, not a refusal: event 1 raises RuntimeError: (no message)",
        ),
        (STEPPED, True, Refusal.BEFORE_ANY_CHANGE, Outcome.FAILS, "torn update"),
        (STEPPED, True, Refusal.AT_ATTACHMENT, Outcome.FAILS, "torn update"),
        (STEPPED, True, None, Outcome.FAILS, "torn update"),
    ],
)
def test_a_refusal_has_a_message_and_comes_in_time(
    message: str, stepped: bool, may_refuse: Refusal | None, outcome: Outcome, detail: str
) -> None:
    def snapshot(value: float) -> Snapshot:
        return Snapshot("event 1", {"weight": torch.tensor(value)}, {}, {"weight": None}, {"weight": []})

    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError(message)
    raised = Raised.observe(caught.value, "event 1", attaching=0)
    standard = Trace(snapshot(0.0), [snapshot(1.0)])
    finding = compare(standard, Trace(snapshot(0.0), [snapshot(float(stepped))], raised), may_refuse)
    assert (finding.outcome, finding.passed) == (outcome, outcome is Outcome.REFUSES)
    assert detail in finding.detail


class SecondRefused(Naive):
    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        if optimizer_class is torch.optim.Adam:
            raise ValueError("one optimizer class for a model")
        super().apply(optimizer_class, params, optimizer_kwargs, register_hook)


@pytest.mark.parametrize("before", [(), (Backward(),)], ids=["untrained", "trained"])
def test_a_refusal_leaves_alone_what_was_attached_before(before: tuple[Backward, ...]) -> None:
    check = Check(Implementation(SecondRefused()), specification()["attachment/frozen"], "cpu")
    first, second = Assignment("SGD", {"lr": 0.1}, ("0.weight",)), Assignment("Adam", {"lr": 0.1}, ("2.weight",))
    check(Plan("MLP", (first,), (*before, AttachMore(second), Backward())))
    assert [finding.outcome for finding in check.findings] == [Outcome.REFUSES]


def standard_loop() -> StandardLoop:
    return StandardLoop(Implementation(object()))


@pytest.mark.parametrize(
    ("name", "model", "params"), [*((name, *MODEL_FOR.get(name, ("MLP", ALL))) for name in NAMES), *WITH_DROPOUT]
)
def test_standard_loop_goes_on_as_if_never_stopped(name: str, model: str, params: str | tuple[str, ...]) -> None:
    """The random numbers of dropout included."""
    assignments = (Assignment(name, {"lr": 0.01}, params),)
    stopped = train(Plan(model, assignments, (*THREE, Save(), Load(), *THREE)), standard_loop())
    never = train(Plan(model, assignments, (*THREE, *THREE)), standard_loop())
    assert stopped.raised is never.raised is None
    after = stopped.snapshots[-1].params
    assert [name for name, value in never.snapshots[-1].params.items() if not same_bits(value, after[name])] == []


def test_rebuilt_model_has_other_values() -> None:
    """Else a checkpoint that is not loaded would go unnoticed."""
    torch.manual_seed(0)
    live = TrainingRun(Plan("MLP", (Assignment("SGD", {"lr": 0.0}),), ()), standard_loop(), "cpu")
    before = live.model.get_parameter("0.weight").detach().clone()
    live.rebuild()
    assert not torch.equal(before, live.model.get_parameter("0.weight"))
