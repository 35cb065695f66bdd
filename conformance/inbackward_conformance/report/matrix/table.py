"""The table of records: requirements down by chapter, implementations across."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Outcome
from inbackward_conformance.report.read_record import BadRecord
from inbackward_conformance.report.record import CaseRecord, RequirementRecord, kept, verdict
from inbackward_conformance.specification import specification

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inbackward_conformance.report.read_record import RecordedRun


@dataclass(frozen=True)
class Cell:
    """What a requirement came to in one column, and the run that tells."""

    requirement: RequirementRecord
    cases: tuple[CaseRecord, ...]
    run: RecordedRun

    @property
    def kept(self) -> bool:
        """Whether the promise was tested and kept."""
        return kept(self.requirement)

    @property
    def telling(self) -> list[CaseRecord]:
        """The cases that say more than `conforms`, the worst first."""
        order = list(Outcome)
        told = [case for case in self.cases if case.outcome is not Outcome.CONFORMS]
        return sorted(told, key=lambda case: (case.passed, order.index(case.outcome)))


@dataclass(frozen=True)
class Column:
    """One implementation with one torch on one device.

    Attributes:
        implementation: its name.
        torch: the version of torch.
        device: the device.
        cells: by requirement.
        label: what tells this column from the others.
    """

    implementation: str
    torch: str
    device: str
    cells: dict[str, Cell]
    label: str = ""

    @property
    def runs(self) -> list[RecordedRun]:
        """The runs that it shows, the earliest first."""
        return sorted({id(cell.run): cell.run for cell in self.cells.values()}.values(), key=lambda run: run.date)

    @property
    def version(self) -> str:
        """The distribution that the implementation is of, with its version; empty where that is torch, or none."""
        versions = dict.fromkeys(run.versions[self.implementation] for run in self.runs)
        return ", ".join(told for told in versions if told and not told.startswith("torch "))

    @property
    def verdict(self) -> str:
        """The verdict on what it shows; a run in which cases were picked out never makes it `conformant`."""
        found = verdict(cell.requirement for cell in self.cells.values())
        whole = all(run.whole for run in self.runs)
        return found if whole or found != "conformant" else "incomplete"

    @property
    def chapters(self) -> list[str]:
        """The chapters that it shows."""
        return list(dict.fromkeys(_chapter(name) for name in self.cells))

    @property
    def absent(self) -> list[str]:
        """The chapters of the specification that none of its runs was about."""
        return [name for name in dict.fromkeys(map(_chapter, specification())) if name not in self.chapters]

    def kept(self, *, chapter: str = "", level: str = "") -> tuple[int, int]:
        """Return of how many requirements how many are kept, of those that apply to the device."""
        asked = [
            cell
            for name, cell in self.cells.items()
            if chapter in {"", _chapter(name)} and level in {"", cell.requirement.level} and cell.requirement.applies
        ]
        return sum(cell.kept for cell in asked), len(asked)


@dataclass(frozen=True)
class Matrix:
    """The whole table."""

    columns: tuple[Column, ...]

    @property
    def chapters(self) -> dict[str, list[RequirementRecord]]:
        """The requirements of each chapter, as the first column that has one tells it."""
        rows = {name: cell.requirement for column in reversed(self.columns) for name, cell in column.cells.items()}
        place = {name: number for number, name in enumerate(specification())}
        ordered = sorted(rows, key=lambda name: (_chapter(name), place.get(name, len(place))))
        return {chapter: [rows[name] for name in names] for chapter, names in groupby(ordered, _chapter)}

    @property
    def runs(self) -> list[RecordedRun]:
        """The runs that it shows, the earliest first."""
        runs = {id(run): run for column in self.columns for run in column.runs}
        return sorted(runs.values(), key=lambda run: run.date)


def merge(runs: Sequence[RecordedRun], *, implementations: Sequence[str] = ()) -> Matrix:
    """Bring runs together: one column for each implementation, version of torch, and device.

    A chapter of a column is of one run: the latest that had it, and one of all its cases before one that picked cases
    out. So a local and a distributed run make one column, and running a chapter again replaces it.

    Args:
        runs: what was read.
        implementations: the ones to show; none: all.

    Raises:
        BadRecord: the runs are of different versions of the specification, or none is of an implementation asked for.
    """
    for run in runs:
        if run.spec != runs[0].spec:
            raise BadRecord(
                f"record {run.path}: of specification {run.spec}, but {runs[0].path} is of {runs[0].spec}; "
                "make both with one version of the suite"
            )
    found: dict[tuple[str, str, str], list[RecordedRun]] = {}
    for run in runs:
        for name in run.implementations:
            found.setdefault((name, run.torch, run.device), []).append(run)
    for name in implementations:
        if name not in {key[0] for key in found}:
            known = ", ".join(dict.fromkeys(key[0] for key in found))
            raise BadRecord(f"no record is of implementation {name!r}; there are: {known or 'none'}")
    shown = {key: own for key, own in found.items() if not implementations or key[0] in implementations}
    columns = [Column(*key, cells=_cells(key[0], own)) for key, own in shown.items()]
    return Matrix(tuple(replace(column, label=_label(column, columns)) for column in columns))


def _cells(implementation: str, runs: Iterable[RecordedRun]) -> dict[str, Cell]:
    chapters: dict[str, dict[str, Cell]] = {}
    for run in sorted(runs, key=lambda run: (run.whole, run.date)):
        cases: dict[str, list[CaseRecord]] = {}
        for case in run.cases:
            if case.implementation == implementation:
                cases.setdefault(case.requirement, []).append(case)
        own = [found for found in run.requirements if found.implementation == implementation]
        for chapter, inside in groupby(own, lambda found: _chapter(found.requirement)):
            cells = {name.requirement: Cell(name, tuple(cases.get(name.requirement, ())), run) for name in inside}
            # A run of which cases were picked out lists as `not run` all that was not: that is no news of a chapter.
            if chapter not in chapters or any(cell.cases for cell in cells.values()):
                chapters[chapter] = cells
    return {name: cell for cells in chapters.values() for name, cell in cells.items()}


def _label(column: Column, columns: Iterable[Column]) -> str:
    """Return the name, and where others bear it too, what they differ in."""
    others = [other for other in columns if other is not column and other.implementation == column.implementation]
    differing = [
        value
        for name, value in (("torch", f"torch {column.torch}"), ("device", column.device))
        if any(getattr(other, name) != getattr(column, name) for other in others)
    ]
    return f"{column.implementation} ({', '.join(differing)})" if differing else column.implementation


def _chapter(requirement: str) -> str:
    return requirement.partition("/")[0]
