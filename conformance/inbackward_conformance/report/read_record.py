"""Reads the record that `--conformance-report` wrote."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from inbackward_conformance.outcome import Outcome
from inbackward_conformance.report.earlier_record import up_to_date
from inbackward_conformance.report.record import UNTESTED, CaseRecord, RequirementRecord

if TYPE_CHECKING:
    from pathlib import Path

    Line = dict[str, Any]


class BadRecord(ValueError):
    """Raised for a file that is no record of a complete run, or does not fit others; the message has the remedy."""


@dataclass(frozen=True)
class RecordedRun:
    """The record of a complete run.

    Attributes:
        path: the file.
        date: the start of the run, in UTC.
        spec: the version of the specification.
        inbackward: the version of this package.
        torch: the version of torch, with its build.
        python: the version of Python.
        device: the device.
        versions: the distribution of each implementation, with its version; empty if it is of none.
        implementations: the implementations tested, in the order of the command line.
        cases: all cases.
        requirements: all requirements of all implementations.
        whole: whether all cases of its chapters were selected.
        optimizers: the own optimizer classes of implementations that declare some.
        rounding: the `size` and `reason` of implementations that declare a rounding.
    """

    path: Path
    date: datetime
    spec: str
    inbackward: str
    torch: str
    python: str
    device: str
    versions: dict[str, str]
    implementations: tuple[str, ...]
    cases: tuple[CaseRecord, ...]
    requirements: tuple[RequirementRecord, ...]
    whole: bool
    optimizers: dict[str, list[str]]
    rounding: dict[str, dict[str, Any]]


def read_record(path: Path) -> RecordedRun:
    """Read one record.

    Raises:
        BadRecord: if the file cannot be read, is not a record, or is of an incomplete run.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kinds = [line["kind"] for line in lines]
    except OSError as error:
        raise BadRecord(f"record {path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadRecord(
            f"record {path}: not JSON Lines of a conformance run; give what --conformance-report wrote"
        ) from error
    if not kinds or kinds[0] != "header" or kinds[-1] != "footer":
        raise BadRecord(f"record {path}: has no footer, its run did not reach its end; run it again")
    try:
        run = _run(path, lines)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRecord(
            f"record {path}: of another version of the suite ({type(error).__name__}: {error}); run it again"
        ) from error
    if missing := [name for name in run.implementations if name not in run.versions]:
        raise BadRecord(
            f"record {path}: its header lacks {', '.join(missing)}, of which its footer has a verdict; run it again"
        )
    return run


def _run(path: Path, lines: list[Line]) -> RecordedRun:
    header, footer = lines[0], lines[-1]
    cases = tuple(CaseRecord.load(_values(CaseRecord, up_to_date(line))) for line in lines if line["kind"] == "case")
    tested = Counter((case.implementation, case.requirement) for case in cases if case.outcome not in UNTESTED)
    return RecordedRun(
        path=path,
        date=datetime.fromisoformat(header["date"]).astimezone(timezone.utc),
        **{name: str(header[name]) for name in ("spec", "inbackward", "torch", "python", "device")},
        versions=dict(header["versions"]),
        implementations=tuple(footer["implementations"]),
        cases=cases,
        requirements=tuple(
            RequirementRecord(
                **{"tested": tested[line["implementation"], line["requirement"]], **_values(RequirementRecord, line)}
            )
            for line in lines
            if line["kind"] == "requirement"
        ),
        whole=footer["whole"],
        optimizers=dict(header.get("optimizers", {})),
        rounding=dict(header.get("rounding", {})),
    )


def _values(record: type, line: Line) -> Line:
    """Return the fields of `record` in a line, which may have further keys."""
    values = {field.name: line[field.name] for field in fields(record) if field.name in line}
    return values | {"outcome": Outcome(line["outcome"])}
