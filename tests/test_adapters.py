"""The adapters that ship with the suite, as far as they need no library; `nox -s matrix` runs all of them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from conftest import read_record
from inbackward_conformance.adapters.find import UnusableImplementation, find_implementation
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.checking.check import Check
from inbackward_conformance.outcome import BrokenPromise, NotOffered, Outcome
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward, ClippedBackward
from inbackward_conformance.specification import specification
from recipe import TutorialRecipe

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).parents[1]
ADAM = Assignment("Adam", {"lr": 0.01})
PLAN = Plan("MLP", (ADAM,), (Backward(),) * 3)


def check_of(target: Any) -> Check:
    return Check(Implementation(target), specification()["gradients/freed"], "cpu")


def test_the_recipe_of_the_tutorial_trains_as_the_standard_loop() -> None:
    check = check_of(TutorialRecipe)
    check(PLAN)
    assert [finding.outcome for finding in check.findings] == [Outcome.CONFORMS]


def test_the_recipe_of_the_tutorial_never_steps_a_second_optimizer() -> None:
    with pytest.raises(BrokenPromise, match=r"diverges: parameter '0\.weight' differs .* after event 1"):
        check_of(TutorialRecipe)(Plan("MLP", (ADAM, ADAM), (Backward(),)))


@pytest.mark.parametrize(
    "assignment", [replace(ADAM, hook=False), replace(ADAM, named=True)], ids=["unhooked", "named"]
)
def test_what_the_recipe_cannot_say_is_not_offered(assignment: Assignment) -> None:
    with pytest.raises(NotOffered, match="the recipe"):
        check_of(TutorialRecipe)(replace(PLAN, assignments=(assignment,)))


class CountsElsewhere(TutorialRecipe):
    """Its optimizers have an entry more than those of the standard loop."""

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        class Counting(optimizer_class):  # type: ignore[misc]
            def step(self, closure: Any = None) -> None:
                super().step(closure)
                for state in self.state.values():
                    state["bookkeeping"] = "of its own"

        super().apply(Counting, params, optimizer_kwargs, register_hook)


class TellsItsState(CountsElsewhere):
    def state_of(self, optimizer: torch.optim.Optimizer, param: torch.Tensor) -> dict[str, Any]:
        return {key: value for key, value in optimizer.state[param].items() if key != "bookkeeping"}


def test_states_of_another_layout_are_compared_by_what_the_adapter_says() -> None:
    with pytest.raises(BrokenPromise, match="'bookkeeping' is unexpected"):
        check_of(CountsElsewhere)(PLAN)
    check_of(TellsItsState)(PLAN)


class CannotBeMade(TutorialRecipe):
    def standard_optimizer(self, optimizer_class: Any, params: Any, options: Any) -> torch.optim.Optimizer:
        raise ValueError("no weight decay here")


class CannotStep(TutorialRecipe):
    def standard_optimizer(self, optimizer_class: Any, params: Any, options: Any) -> torch.optim.Optimizer:
        class Strict(optimizer_class):  # type: ignore[misc]
            def step(self, closure: Any = None) -> None:
                raise ValueError("no step without a scale")

        return cast("torch.optim.Optimizer", Strict(params, **options))


def test_its_own_class_may_raise_in_a_step_of_the_standard_loop_but_not_when_it_is_made() -> None:
    with pytest.raises(NotOffered, match=r"its own optimizer class raises .* no step without a scale"):
        check_of(CannotStep)(PLAN)
    with pytest.raises(RuntimeError, match=r"the plan proves nothing, .* no weight decay here"):
        check_of(CannotBeMade)(PLAN)


@pytest.mark.parametrize("name", ["optimi", "torchtune"])
def test_a_library_that_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"inbackward_conformance.adapters.shipped.{name}", raising=False)
    with pytest.raises(UnusableImplementation, match=rf"cannot be imported .*ModuleNotFoundError.*{name}"):
        find_implementation(name)


def test_what_cannot_be_imported_is_recorded_as_not_run(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "ci" / "record_each.py"), str(tmp_path), "absent:Library"]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    assert "absent:Library is not run: implementation 'absent:Library' cannot be imported" in done.stdout
    chapters: list[set[str]] = []
    for part in ("", "-distributed"):
        record = read_record(tmp_path / f"absent:Library{part}.jsonl")
        assert record[-1]["implementations"]["absent:Library"]["verdict"] == "incomplete"
        cases = [line for line in record if line["kind"] == "case"]
        assert {line["outcome"] for line in cases} == {"not run"}
        chapters.append({line["requirement"].partition("/")[0] for line in cases})
    here, on_ranks = chapters
    assert "ddp" in on_ranks - here
    assert "sharing" in here - on_ranks


def test_a_run_whose_record_is_there_is_not_repeated(tmp_path: Path) -> None:
    """So that a run of many implementations goes on after an interruption."""
    command = [sys.executable, str(ROOT / "ci" / "record_each.py"), str(tmp_path), "torch"]
    options = ["--", "-q", "-p", "no:randomly", "-k", "test_sharing and two_names"]
    report, told = tmp_path / "torch.jsonl", "torch, here: the record is there (torch.jsonl)"
    first = subprocess.run([*command, *options], text=True, capture_output=True, check=False)
    (verdict,) = read_record(report)[-1]["implementations"].values()
    assert told not in first.stdout
    assert verdict["conforms"] == 1
    again = subprocess.run([*command, *options], text=True, capture_output=True, check=False)
    assert told in again.stdout
    assert "torch, on ranks: the record is there" not in again.stdout, "no test was selected there"


@pytest.mark.parametrize("seed", range(4))
def test_the_norm_of_several_optimizers_adds_up_in_the_order_of_hand_over(seed: int) -> None:
    """Not in the order in which they are listed, that of the model's parameters: another order rounds otherwise."""
    later = Assignment("SGD", {"lr": 0.05}, params=("0.bias", "2.bias", "4.bias"))
    earlier = Assignment("AdamW", {"lr": 0.01}, params=("0.weight", "2.weight", "4.weight"))
    check = check_of(find_implementation("reference-handed"))
    check(Plan("MLP", (later, earlier), (ClippedBackward(0.01),) * 3, seed=seed))
    assert [finding.outcome for finding in check.findings] == [Outcome.CONFORMS]
