"""What `nox -s mutants` keeps is of the mutants that there are."""

from __future__ import annotations

import json

from inbackward_conformance.specification import specification
from mutants import MUTANTS
from score import TRACES


def test_the_specification_traces_every_mutant() -> None:
    """If this fails: nox -s mutants -- --accept."""
    kept = {name: set(trace["mutants"]) for name, trace in json.loads(TRACES.read_text(encoding="utf-8")).items()}
    there = {
        name: {mutant.name.partition(":")[2] for mutant in MUTANTS if mutant.requirement == name}
        for name in specification()
    }
    assert kept == there
