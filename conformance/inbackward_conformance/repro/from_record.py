"""Reads a failure from the record of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import inbackward_conformance.plan.events  # noqa: F401 (`read` looks their classes up)
from inbackward_conformance.outcome import Outcome
from inbackward_conformance.plan.literals import read
from inbackward_conformance.report.read_record import BadRecord, read_record
from inbackward_conformance.repro.failure import AT_THE_END, CannotWrite, Failure
from inbackward_conformance.specification import specification

if TYPE_CHECKING:
    from pathlib import Path

    from inbackward_conformance.report.record import CaseRecord


def find_failure(path: Path, requirement: str, implementation: str = "", case: str | None = None) -> Failure:
    """Return the first failure of a requirement in a record, optionally of one implementation and case.

    Raises:
        BadRecord: the file is no record, or has no such failure.
    """
    run = read_record(path)
    failed = [record for record in run.cases if not record.passed and record.outcome is not Outcome.ERROR]
    of_requirement = [record for record in failed if record.requirement == requirement]
    fitting = [
        record
        for record in of_requirement
        if implementation in {"", record.implementation} and case in {None, record.case}
    ]
    if len({record.implementation for record in fitting}) > 1:
        names = ", ".join(dict.fromkeys(record.implementation for record in fitting))
        raise BadRecord(f"record {path}: {requirement} fails for {names}; add --implementation NAME")
    if not fitting and of_requirement:
        known = ", ".join(f"{record.implementation} [{record.case}]" for record in of_requirement)
        raise BadRecord(f"record {path}: no such failure of {requirement}; there are {known}")
    if not fitting:
        known = ", ".join(dict.fromkeys(record.requirement for record in failed)) or "nothing"
        raise BadRecord(f"record {path}: {requirement} has not failed there; what has: {known}")
    return failure_of(fitting[0], run.device)


def failure_of(case: CaseRecord, device: str) -> Failure:
    """Return the failure of a case in a record.

    Raises:
        CannotWrite: the options of its optimizers are not literals.
    """
    try:
        plan = read(case.plan) if case.plan else None
    except (SyntaxError, ValueError) as error:
        raise CannotWrite(f"its plan has options that no literal stands for: {case.plan}") from error
    return Failure(
        case.implementation,
        specification()[case.requirement],
        case.case,
        case.outcome,
        case.detail,
        case.difference or AT_THE_END,
        plan,
        case.arguments,
        device,
    )
