"""The suite on libraries that bring optimizer classes of their own, in `own_classes`, and on twins with one defect."""

from __future__ import annotations

import pytest

from conftest import Record, Suite

ADAPTERS = "own_classes.adapters"
DEFECTIVE = "own_classes.defective"

KNOWN = {"hazards/checkpoint_of_detached_use", "hazards/stale_graph_explained", "listing/order"}
"""SHOULDs that these libraries do not keep: no hook can tell the first, and one optimizer has all parameters."""

UNNOTICED = {
    "hazards/grad_scaler",
    "lifetime/swapped_tensors",
    "models/shared_storage_of_two_optimizers",
    "properties/shared_storage",
    "properties/swapped_tensors",
}
"""MUSTs that they break: torch has no hook for a scaled loss or a swap, and they step in the order of gradients."""


def of_requirements(suite: Suite) -> Record:
    return [line for line in suite.record() if line["kind"] == "requirement"]


def failing(suite: Suite) -> set[str]:
    lines = (line for line in of_requirements(suite) if not line["passed"] and line["outcome"] != "not run")
    return {line["requirement"] for line in lines} - KNOWN


def musts_run(suite: Suite) -> set[str]:
    cases = (case for case in suite.cases() if case["level"] == "MUST")
    return {case["requirement"] for case in cases if case["outcome"] not in {"not offered", "not run"}}


@pytest.mark.parametrize(
    ("library", "musts"),
    [("LomoLike", 90), ("AdaLomoLike", 115), ("ProdigyLike", 115), ("HeavyballLike", 115)],
)
def test_a_sound_library_is_tested_and_accused_of_nothing_else(suite: Suite, library: str, musts: int) -> None:
    suite.run("--implementation", f"{ADAPTERS}:{library}", "--tb=no", chapter="")
    assert failing(suite) <= UNNOTICED, [line for line in suite.cases() if not line["passed"]]
    assert len(musts_run(suite)) >= musts


def test_rounding_is_declared_where_there_is_some(suite: Suite) -> None:
    """An estimate is summed in the order of gradients, and as a control in that of parameters."""
    names = (f"{DEFECTIVE}:Undeclared", f"{ADAPTERS}:ProdigyLikeInOrder")
    suite.run(*(f"--implementation={name}" for name in names), "--tb=no", chapter="models")
    failed = {(line["implementation"], line["requirement"]) for line in of_requirements(suite) if not line["passed"]}
    assert failed == {(names[0], "models/dtype")}


@pytest.mark.parametrize(
    ("twin", "chapter", "caught_by"),
    [
        ("StepsInParts", "hazards", {"hazards/checkpoint_of_shared_parameter"}),
        (
            "ForgetsOnLoad",
            "state",
            {
                "state/resume",
                "state/resume_several_optimizers",
                "state/resume_shared_parameter",
                "state/resume_options",
                "state/roll_back",
                "state/from_standard",
            },
        ),
        ("CountsTheUnreached", "models", {"models/skipped_branches"}),
        (
            "KeepsGradients",
            "memory",
            {
                "memory/peak_of_gradients",
                "memory/peak_of_compiled_layers",
                "memory/gradients_freed",
                "memory/no_second_copy",
            },
        ),
    ],
)
def test_a_defect_is_caught_by_the_requirements_that_name_it(
    suite: Suite, twin: str, chapter: str, caught_by: set[str]
) -> None:
    suite.run("--implementation", f"{DEFECTIVE}:{twin}", "--tb=no", chapter=chapter)
    assert failing(suite) - UNNOTICED == caught_by
