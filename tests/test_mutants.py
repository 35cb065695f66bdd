"""What `nox -s mutants` runs, demands and keeps."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from inbackward_conformance.specification import specification
from mutants import MUTANTS
from score import CAUGHT, RUN_HERE, TRACES, Seen, run


def test_every_requirement_has_a_mutant() -> None:
    """A requirement that nothing fails shows nothing."""
    without = specification().keys() - {mutant.requirement for mutant in MUTANTS}
    assert not without, f"no mutant for: {', '.join(sorted(without))}"


def test_a_mutant_is_caught_by_what_its_base_keeps(tmp_path: Path) -> None:
    """Were it made from itself, its failures would be those of its base, and prove nothing."""
    mutant = next(mutant for mutant in MUTANTS if mutant.requirement == "sharing/used_twice")
    report = tmp_path / "record.jsonl"
    run(report, [mutant.name, mutant.made_from], ["-k", "test_sharing"])
    seen = Seen([report])
    assert seen.is_caught(mutant)
    assert not seen.is_caught(replace(mutant, made_from=mutant.name))


# If one of these fails: nox -s mutants -- --accept.


def test_what_mutants_fail_is_kept() -> None:
    kept: dict[str, set[str]] = {}
    for line in CAUGHT.read_text(encoding="utf-8").splitlines()[2:]:
        if match := re.match(r"(\w+:\w+)", line):
            failed = kept.setdefault(f"mutants.{match[1]}", set())
        elif match := re.match(r"\* (\w+/\w+)", line):
            failed.add(match[1])
    wanted = {name: {mutant.requirement for mutant in RUN_HERE if mutant.name == name} for name in kept}
    assert kept == wanted
    assert kept.keys() == {mutant.name for mutant in MUTANTS}


def test_the_specification_traces_every_mutant() -> None:
    traces = json.loads(TRACES.read_text(encoding="utf-8"))
    assert traces.keys() == specification().keys()
    for name, trace in traces.items():
        own = [mutant for mutant in MUTANTS if mutant.requirement == name]
        assert trace["mutants"] == [mutant.name.partition(":")[2] for mutant in own]
        assert trace["run"] == trace["caught"] == sum(mutant in RUN_HERE for mutant in own)
