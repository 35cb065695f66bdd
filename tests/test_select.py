"""`--conformance-select` runs chosen cases, and a run of several implementations trains by the standard loop once."""

from __future__ import annotations

import json

import pytest

from conftest import Suite
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.checking.check import Check
from inbackward_conformance.checking.standard_runs import StandardRuns
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward
from inbackward_conformance.specification import specification
from recipe import TutorialRecipe

PLAN = Plan("MLP", (Assignment("SGD", {"lr": 0.1}),), (Backward(),))


def test_chosen_cases_run_alone(suite: Suite, pytester: pytest.Pytester) -> None:
    chosen = {"reference": {"sharing/used_twice": [""]}, "torch": {"sharing/used_twice": ["Adam", ""]}}
    pytester.path.joinpath("chosen.json").write_text(json.dumps(chosen), encoding="utf-8")
    names = ("--implementation=reference", "--implementation=torch")
    suite.run(*names, "--conformance-select=chosen.json", chapter="sharing")
    ran = [(case["implementation"], case["requirement"], case["case"]) for case in suite.cases()]
    assert sorted(ran) == [
        ("reference", "sharing/used_twice", "SGD-momentum"),
        ("torch", "sharing/used_twice", "Adam"),
        ("torch", "sharing/used_twice", "SGD-momentum"),
    ]
    assert suite.verdicts()["reference"] == "incomplete"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("[]", "expected JSON such as"),
        ("{", "expected JSON such as"),
        ('{"torch": {"sharing/used_twice": "SGD"}}', "expected JSON such as"),
        ('{"reference": {"sharing/used_twice": [""]}}', "reference is not tested; add --implementation reference"),
        ('{"torch": {"sharing/used": [""]}}', "no requirement sharing/used; "),
    ],
)
def test_a_file_that_selects_nothing(text: str | None, message: str, suite: Suite, pytester: pytest.Pytester) -> None:
    if text is not None:
        pytester.path.joinpath("chosen.json").write_text(text, encoding="utf-8")
    result = suite.run("--implementation=torch", "--conformance-select=chosen.json")
    result.stderr.fnmatch_lines([f"ERROR: --conformance-select chosen.json: {message}*"])


class OwnClasses(TutorialRecipe):
    def standard_optimizer(self, optimizer_class, params, optimizer_kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return optimizer_class(params, **optimizer_kwargs)


@pytest.mark.parametrize(
    ("implementations", "target", "remembered"), [(2, TutorialRecipe, 1), (1, TutorialRecipe, 0), (2, OwnClasses, 0)]
)
def test_the_standard_loop_is_remembered(implementations: int, target: type, remembered: int) -> None:
    """Not for one implementation alone, nor for one that has optimizer classes of its own."""
    runs, implementation = StandardRuns(implementations), Implementation(target)
    check = Check(implementation, specification()["gradients/freed"], "cpu", standard_runs=runs)
    check(PLAN)
    assert len(runs.remembered(PLAN, implementation)) == remembered
    check(PLAN)
