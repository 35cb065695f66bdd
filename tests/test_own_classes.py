"""The suite on libraries that bring optimizer classes of their own, in `own_classes`, and on twins with one defect."""

from __future__ import annotations

import pytest

from conftest import Suite

ADAPTERS = "own_classes.adapters"
DEFECTIVE = "own_classes.defective"

KNOWN = {"hazards/checkpoint_of_detached_use", "listing/order"}
"""Two SHOULDs that these libraries do not keep: no hook can tell the first, and one optimizer has all parameters."""


def failing(suite: Suite) -> set[str]:
    passing = {"conforms", "refuses", "not offered", "not run"}
    return {requirement for requirement, outcome in suite.outcomes().items() if outcome not in passing}


def musts_run(suite: Suite) -> list[str]:
    lines = [line for line in suite.record() if line["kind"] == "requirement" and line["level"] == "MUST"]
    return [line["requirement"] for line in lines if line["outcome"] not in {"not offered", "not run"}]


@pytest.mark.parametrize(
    ("library", "musts"),
    [("LomoLike", 90), ("AdaLomoLike", 115), ("ProdigyLike", 115), ("HeavyballLike", 115)],
)
def test_a_sound_library_is_tested_and_accused_of_nothing(suite: Suite, library: str, musts: int) -> None:
    suite.run("--implementation", f"{ADAPTERS}:{library}", chapter="")
    assert failing(suite) <= KNOWN, [line for line in suite.cases() if not line["passed"]]
    assert set(suite.verdicts().values()) <= {"conformant", "incomplete"}
    run = musts_run(suite)
    assert len(run) >= musts, f"{len(run)} MUSTs ran"


def test_without_its_rounding_an_estimate_in_the_order_of_gradients_diverges(suite: Suite) -> None:
    suite.run("--implementation", f"{DEFECTIVE}:Undeclared", chapter="models")
    assert failing(suite) == {"models/dtype"}


def test_an_estimate_in_the_order_of_parameters_needs_no_rounding(suite: Suite) -> None:
    suite.run("--implementation", f"{ADAPTERS}:ProdigyLikeInOrder", chapter="models")
    assert not failing(suite)


@pytest.mark.parametrize(
    ("twin", "chapter", "caught_by"),
    [
        ("StepsInParts", "hazards", {"hazards/checkpoint_of_shared_parameter"}),
        ("ForgetsOnLoad", "state", {"state/resume"}),
        ("CountsTheUnreached", "gradients", {"gradients/unused_parameter"}),
        ("KeepsGradients", "memory", {"memory/gradients_freed"}),
    ],
)
def test_a_defect_is_caught_by_the_requirement_that_names_it(
    suite: Suite, twin: str, chapter: str, caught_by: set[str]
) -> None:
    suite.run("--implementation", f"{DEFECTIVE}:{twin}", chapter=chapter)
    assert failing(suite) - KNOWN == caught_by
