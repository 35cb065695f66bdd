"""Implementations with optimizer classes of their own are accused of nothing that the class does by itself."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.optim import SGD

from conftest import read_record
from inbackward_conformance import NotOffered, OwnOptimizer
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.checking.check import Check
from inbackward_conformance.outcome import BrokenPromise, Difference, Outcome
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward, Load, Save
from inbackward_conformance.specification import specification
from mutants.naive import Naive

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

SIX_STEPS = (Backward(),) * 6
STOP_AND_GO_ON = (*SIX_STEPS[:3], Save(), Load(), *SIX_STEPS[3:])


class NoScalars(SGD):
    """Raises for a 0-dim parameter, by an accident."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                param.shape[0]
        super().step()


class Forgets(SGD):
    """Loads no state."""

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict({**state_dict, "state": {}})


class Pickled(SGD):
    """Keeps an object beside its momentum that `weights_only` refuses."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        super().step()
        for state in self.state.values():
            state["made_by"] = functools.partial(int)


class Own(Naive):
    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        for param in dict.fromkeys(params):
            self.attach_to(param, optimizer_class([param], **optimizer_kwargs), hook=register_hook)

    def state_of(self, optimizer: Optimizer, param: Tensor) -> dict[str, Any]:
        return {key: value for key, value in optimizer.state[param].items() if key != "made_by"}


class OfNoScalars(Own):
    own_optimizers = (OwnOptimizer("test_own_optimizers:NoScalars", {"lr": 0.1, "momentum": 0.9}),)


class OfForgets(Own):
    own_optimizers = (OwnOptimizer("test_own_optimizers:Forgets", {"lr": 0.1, "momentum": 0.9}),)


class RemembersForIt(OfForgets):
    """Loads the states past the class."""

    def load_state_dict(self, module: nn.Module, state: Any) -> None:
        for optimizer, saved in zip(self.optimizers(module), state, strict=True):
            SGD.load_state_dict(optimizer, saved)


class OfPickled(Own):
    own_optimizers = (OwnOptimizer("test_own_optimizers:Pickled", {"lr": 0.1, "momentum": 0.9}),)


class StepsByItself(Own):
    """Never calls `Optimizer.step`."""

    own_optimizers = (OwnOptimizer("SGD", {"lr": 0.1}),)

    @torch.no_grad()
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        assert param.grad is not None
        param.sub_(param.grad, alpha=optimizer.param_groups[0]["lr"])


class IgnoresTheSchedule(StepsByItself):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        super().step(SGD([param], lr=optimizer.defaults["lr"]), param)


class StepsTwiceAsFar(Naive):
    """Differs whatever the caller does."""

    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        return super().build(optimizer_class, params, {**kwargs, "lr": 2 * kwargs["lr"]})


class KeepsGradients(Naive):
    def on_gradient(self, param: Tensor) -> None:
        self.step_all(param)


SELECTED = {
    "OfNoScalars": ["properties/structures"],
    "OfPickled": ["state/saved_states", "state/from_standard", "state/to_standard"],
    "StepsByItself": ["schedule/optimizers_that_step"],
    "IgnoresTheSchedule": ["schedule/optimizers_that_step"],
    "StepsTwiceAsFar": ["attachment/options_of_the_caller"],
    "KeepsGradients": ["lifetime/copy_is_independent"],
}

Found = dict[tuple[str, str], tuple[str, str]]
"""Outcome and detail, by implementation and requirement."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Run the first cases of `SELECTED`, all in one process."""
    folder = tmp_path_factory.mktemp("found")
    report, selected = folder / "record.jsonl", folder / "selected.json"
    names = [f"{__name__}:{name}" for name in SELECTED]
    chosen = {f"{__name__}:{name}": {key: [""] for key in each} for name, each in SELECTED.items()}
    selected.write_text(json.dumps(chosen), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "--pyargs", "inbackward_conformance", "-q", "-p", "no:xdist"]
    command += ["--conformance-report", str(report), "--conformance-select", str(selected)]
    command += [f"--implementation={name}" for name in names]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False)
    cases = [line for line in read_record(report) if line["kind"] == "case"]
    return {
        (line["implementation"].partition(":")[2], line["requirement"]): (line["outcome"], line["detail"])
        for line in cases
    }


def check_of(target: Any, requirement: str = "state/resume") -> Check:
    return Check(Implementation(target), specification()[requirement], "cpu")


def test_a_plan_on_which_the_class_itself_raises_is_not_offered() -> None:
    check = check_of(OfNoScalars)
    with pytest.raises(NotOffered, match="the standard loop with its own optimizer class raises IndexError"):
        check(Plan("OddShapes", (Assignment("SGD"),), SIX_STEPS))
    check(Plan("MLP", (Assignment("SGD"),), SIX_STEPS))
    assert [finding.outcome for finding in check.findings] == [Outcome.CONFORMS]


def test_drawn_plans_go_on_after_one_on_which_the_class_raises(found: Found) -> None:
    assert found["OfNoScalars", "properties/structures"] == ("conforms", "")


def test_a_class_that_does_not_resume_is_told_so() -> None:
    """The standard loop forgets as much, so that only the loop that was never stopped can tell."""
    plan = Plan("MLP", (Assignment("SGD"),), STOP_AND_GO_ON)
    never_stopped = Plan("MLP", (Assignment("SGD"),), SIX_STEPS)
    check_of(OfForgets)(plan)
    with pytest.raises(BrokenPromise, match=r"its optimizer class does not go on .*: parameter '0\.weight'") as broken:
        check_of(OfForgets)(plan, never_stopped=never_stopped)
    difference = broken.value.finding.difference
    assert isinstance(difference, Difference)
    assert difference.never_stopped


def test_an_implementation_that_resumes_better_than_its_class_conforms() -> None:
    check = check_of(RemembersForIt)
    plan = Plan("MLP", (Assignment("SGD"),), STOP_AND_GO_ON)
    with pytest.raises(BrokenPromise):
        check(plan)
    check(plan, never_stopped=Plan("MLP", (Assignment("SGD"),), SIX_STEPS))
    assert check.findings[-1].detail == "goes on as if never stopped, which its standard optimizer does not"


def test_saved_states_that_weights_only_refuses_are_told_as_that(found: Found) -> None:
    """They are no error of the suite, and no defect where the standard optimizer's are refused too."""
    outcome, detail = found["OfPickled", "state/saved_states"]
    assert outcome == "conforms"
    assert detail.startswith("as for its standard optimizer: with weights_only=True torch.load does not load")
    assert detail.endswith("it refuses functools.partial")
    assert found["OfPickled", "state/from_standard"][0] == "conforms"
    assert found["OfPickled", "state/to_standard"][0] == "conforms"


def test_a_schedule_is_judged_by_what_moves_the_parameters(found: Found) -> None:
    requirement = "schedule/optimizers_that_step"
    assert found["StepsByItself", requirement] == ("conforms", "")
    assert found["IgnoresTheSchedule", requirement] == (
        "fails",
        "0.weight is stepped as if the scheduler had set nothing",
    )


def test_the_callers_options_are_blamed_only_after_a_control(found: Found) -> None:
    outcome, detail = found["StepsTwiceAsFar", "attachment/options_of_the_caller"]
    assert outcome == "fails"
    assert detail.startswith("0.weight differs from the standard loop, whether or not the caller changes its dict")


def test_backward_over_a_copy_is_blamed_only_after_a_control(found: Found) -> None:
    detail = "0.weight of the original keeps its gradient after backward"
    assert found["KeepsGradients", "lifetime/copy_is_independent"] == ("fails", detail)
