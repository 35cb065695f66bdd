"""Finds a failure in the record of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import inbackward_conformance.events  # noqa: F401 (plans are made of them)
from inbackward_conformance.matrix import BadRecord, read_record
from inbackward_conformance.printable import read
from inbackward_conformance.repro.failure import Failure
from inbackward_conformance.specification import specification

if TYPE_CHECKING:
    from pathlib import Path


def find_failure(path: Path, requirement: str, implementation: str = "", case: str | None = None) -> Failure:
    """Return the first failure of a requirement in a record, or that of one implementation and case.

    Raises:
        BadRecord: the file is no record, or holds no such failure.
    """
    header, *lines = read_record(path)
    failed = [line for line in lines if line["kind"] == "case" and not line["passed"] and line["outcome"] != "error"]
    of_requirement = [line for line in failed if line["requirement"] == requirement]
    found = [
        line
        for line in of_requirement
        if implementation in {"", line["implementation"]} and case in {None, line["case"]}
    ]
    if len({line["implementation"] for line in found}) == 1:
        return _failure(found[0], header["device"])
    if found:
        names = ", ".join(dict.fromkeys(line["implementation"] for line in found))
        raise BadRecord(f"record {path}: {requirement} fails for {names}; add --implementation NAME")
    if of_requirement:
        known = ", ".join(f"{line['implementation']} [{line['case']}]" for line in of_requirement)
        raise BadRecord(f"record {path}: no such failure of {requirement}; there are {known}")
    known = ", ".join(dict.fromkeys(line["requirement"] for line in failed)) or "nothing"
    raise BadRecord(f"record {path}: {requirement} has not failed there; what has: {known}")


def _failure(line: dict[str, Any], device: str) -> Failure:
    return Failure(
        line["implementation"],
        specification()[line["requirement"]],
        line["case"],
        line["outcome"],
        line["detail"],
        read(line["plan"]) if line["plan"] else None,
        line["arguments"],
        device,
    )
