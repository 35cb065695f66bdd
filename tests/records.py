"""Records as a run writes them, for tests of what is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

from inbackward_conformance.outcome import Outcome
from inbackward_conformance.report.record import CaseRecord, RecordFile, summarize
from inbackward_conformance.specification import specification

VERSIONS = {"inbackward": "0.1", "torch": "2.13.0"}
PASSING = {Outcome.CONFORMS, Outcome.NOT_OFFERED, Outcome.NOT_RUN}


def case(implementation: str, requirement: str, outcome: str, *, name: str = "", **values: Any) -> CaseRecord:
    """A refusal passes where it may."""
    promise = specification()[requirement]
    passed = Outcome(outcome) in PASSING or (outcome == Outcome.REFUSES and promise.may_refuse is not None)
    return CaseRecord(implementation, requirement, name, promise.level, Outcome(outcome), passed, **values)


def write_record(
    path: Path, *cases: CaseRecord, whole: bool = True, not_run: tuple[str, ...] = (), **header: Any
) -> Path:
    """Write the record of a run with these cases; `header` replaces what its first line says."""
    with (
        path.open("w", encoding="utf-8") as file,
        mock.patch("inbackward_conformance.report.record.version", VERSIONS.get),
    ):
        own: dict[str, list[CaseRecord]] = {}
        for each in cases:
            own.setdefault(each.implementation, []).append(each)
        record = RecordFile(file, {name: f"{name}-library 1.2" for name in own}, device="cpu", seed=0, profile="quick")
        for each in cases:
            record.write_case(each)
        results = {name: summarize(name, its_own, not_run, "cpu") for name, its_own in own.items()}
        record.finish(results, selection="", whole=whole)
    first, *others = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | header), *others, ""]), encoding="utf-8")
    return path
