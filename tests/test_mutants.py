"""The suite can fail: each broken implementation is caught by the requirement that it names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from inbackward_conformance.read_record import read_record
from inbackward_conformance.specification import DISTRIBUTED, specification
from mutants import MUTANTS, Mutant
from one_case import sound_for

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def caught(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[str, str]]:
    """Outcome and detail by mutant and requirement, from a run over all mutants that are made from the same."""
    folder = tmp_path_factory.mktemp("mutants")
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for number, (sound, on_ranks) in enumerate(sorted({_made_from(mutant) for mutant in MUTANTS})):
        mutants = [mutant for mutant in MUTANTS if _made_from(mutant) == (sound, on_ranks)]
        chapters = {mutant.requirement.partition("/")[0] for mutant in mutants}
        device = "cuda" if on_ranks and torch.cuda.is_available() else "cpu"
        options = [*(["--distributed"] if on_ranks else []), "--device", device]
        found |= _run(folder / f"{number}.jsonl", [sound, *(mutant.name for mutant in mutants)], chapters, options)
    return found


def _made_from(mutant: Mutant) -> tuple[str, bool]:
    return sound_for(mutant.requirement), mutant.requirement.partition("/")[0] in DISTRIBUTED


def _run(
    report: Path, names: list[str], chapters: Iterable[str], options: list[str]
) -> dict[tuple[str, str], tuple[str, str]]:
    named = [argument for name in dict.fromkeys(names) for argument in ("--implementation", name)]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--pyargs",
        *(f"inbackward_conformance.requirements.test_{chapter}" for chapter in sorted(chapters)),
        "-q",
        "-p",
        "no:randomly",
        *options,
    ]
    command += ["--case-seconds", "300"]  # a first compilation by inductor takes its time
    command += ["-p", "one_case", "-p", "no:xdist", "--conformance-report", str(report), *named]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=report.parent, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    return {(case.implementation, case.requirement): (case.outcome, case.detail) for case in read_record(report).cases}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.name.partition(':')[2]}-{mutant.requirement}")
def test_mutant_is_caught(mutant: Mutant, caught: dict[tuple[str, str], tuple[str, str]]) -> None:
    """A mutant fails its requirement by what it does: not by an error of the suite."""
    outcome, detail = caught[mutant.name, mutant.requirement]
    if outcome == "not run" and specification()[mutant.requirement].accelerator:
        pytest.skip(detail)
    assert outcome in {"diverges", "fails", "refuses"}, f"{outcome} {detail}"
    assert detail


def test_what_mutants_are_made_from_is_sound(caught: dict[tuple[str, str], tuple[str, str]]) -> None:
    """Without the one defect nothing is caught: a mutant fails for its own reason."""
    sound = {sound_for(mutant.requirement) for mutant in MUTANTS}
    unsound = {
        requirement
        for (implementation, requirement), (outcome, _) in caught.items()
        if implementation in sound
        and outcome not in {"conforms", "refuses"}
        and not (outcome == "not run" and specification()[requirement].accelerator)
    }
    assert unsound == {mutant.requirement for mutant in MUTANTS if mutant.name in sound}


def test_every_requirement_has_a_mutant() -> None:
    """A requirement that nothing fails shows nothing."""
    without = specification().keys() - {mutant.requirement for mutant in MUTANTS}
    assert not without, f"no mutant for: {', '.join(sorted(without))}"
