"""The suite can fail: each broken implementation is caught by the requirement that it names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inbackward_conformance.specification import DISTRIBUTED, specification
from mutants import MUTANTS, Mutant
from one_case import SOUND, SOUND_ON_RANKS

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def caught(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[str, str]]:
    """Outcome and detail by mutant and requirement, from one run over all mutants, and one over those on ranks."""
    on_ranks = {mutant for mutant in MUTANTS if mutant.requirement.partition("/")[0] in DISTRIBUTED}
    folder = tmp_path_factory.mktemp("mutants")
    here = _run(folder / "here.jsonl", [SOUND, *(mutant.name for mutant in MUTANTS if mutant not in on_ranks)])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ranks = [*SOUND_ON_RANKS.values(), *(mutant.name for mutant in MUTANTS if mutant in on_ranks)]
    return here | _run(folder / "ranks.jsonl", ranks, "--distributed", "--device", device)


def _run(report: Path, names: list[str], *options: str) -> dict[tuple[str, str], tuple[str, str]]:
    named = [argument for name in dict.fromkeys(names) for argument in ("--implementation", name)]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--pyargs",
        "inbackward_conformance",
        "-q",
        "-p",
        "no:randomly",
        *options,
    ]
    command += ["-p", "one_case", "-p", "no:xdist", "--conformance-report", str(report), *named]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=report.parent, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    records = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    return {
        (record["implementation"], record["requirement"]): (record["outcome"], record["detail"])
        for record in records
        if record["kind"] == "case"
    }


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
    sound = {SOUND, *SOUND_ON_RANKS.values()}
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
