"""The matrix: a row for each requirement, a column for each implementation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Outcome
from inbackward_conformance.report.read_record import BadRecord
from inbackward_conformance.report.record import (
    CaseRecord,
    RequirementRecord,
    describe_rounding,
    reasons_not_run,
    standings,
    standings_by_level,
    verdict,
)
from inbackward_conformance.specification import specification

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inbackward_conformance.report.read_record import RecordedRun


@dataclass(frozen=True)
class Cell:
    """The result of a requirement in one column, and its run."""

    requirement: RequirementRecord
    cases: tuple[CaseRecord, ...]
    run: RecordedRun

    @property
    def observations(self) -> list[CaseRecord]:
        """The cases with another outcome than `conforms`, the worst first."""
        order = list(Outcome)
        cases = [case for case in self.cases if case.outcome is not Outcome.CONFORMS]
        return sorted(cases, key=lambda case: (case.passed, order.index(case.outcome)))


@dataclass(frozen=True)
class Column:
    """One implementation with one torch on one device.

    Attributes:
        implementation: the name.
        torch: the version of torch.
        device: the device.
        cells: the cells by requirement.
        label: a unique name.
    """

    implementation: str
    torch: str
    device: str
    cells: dict[str, Cell]
    label: str = ""

    @property
    def runs(self) -> list[RecordedRun]:
        """The runs of its cells, the earliest first."""
        return sorted({id(cell.run): cell.run for cell in self.cells.values()}.values(), key=lambda run: run.date)

    @property
    def version(self) -> str:
        """The distribution of the implementation, with its version; empty for torch, or if it has none."""
        versions = dict.fromkeys(run.versions[self.implementation] for run in self.runs)
        return ", ".join(version for version in versions if version and not version.startswith("torch "))

    @property
    def optimizers(self) -> list[str]:
        """The own optimizer classes that it was tested with; empty if those of torch."""
        return list(dict.fromkeys(name for run in self.runs for name in run.optimizers.get(self.implementation, ())))

    @property
    def rounding(self) -> str:
        """The rounding that its adapter declares, with the reason; empty if none."""
        declared = [run.rounding[self.implementation] for run in self.runs if self.implementation in run.rounding]
        return "; ".join(dict.fromkeys(map(describe_rounding, declared)))

    @property
    def reasons_not_run(self) -> dict[str, int]:
        """Why requirements were not run, with the number of requirements."""
        return reasons_not_run(self._requirements, (case for cell in self.cells.values() for case in cell.cases))

    @property
    def levels(self) -> dict[str, dict[str, int]]:
        """The requirements that apply to the device, counted by level and standing."""
        return standings_by_level(self._requirements)

    @property
    def _requirements(self) -> list[RequirementRecord]:
        return [cell.requirement for cell in self.cells.values()]

    @property
    def verdict(self) -> str:
        """The verdict; a run of selected cases never makes it `conformant`."""
        conclusion = verdict(self._requirements)
        whole = all(run.whole for run in self.runs)
        return conclusion if whole or conclusion != "conformant" else "incomplete"

    @property
    def chapters(self) -> list[str]:
        """The chapters that it has."""
        return list(dict.fromkeys(_chapter(name) for name in self.cells))

    @property
    def absent(self) -> list[str]:
        """The chapters of the specification that it lacks."""
        return [name for name in dict.fromkeys(map(_chapter, specification())) if name not in self.chapters]

    def of_chapter(self, chapter: str) -> dict[str, int]:
        """Return the requirements of a chapter that apply to the device, counted by standing."""
        return standings(each for each in self._requirements if each.applies and _chapter(each.requirement) == chapter)


@dataclass(frozen=True)
class Matrix:
    """The matrix: its columns."""

    columns: tuple[Column, ...]

    @property
    def chapters(self) -> dict[str, list[RequirementRecord]]:
        """The requirements of each chapter, each from the first column that has it."""
        rows = {name: cell.requirement for column in reversed(self.columns) for name, cell in column.cells.items()}
        place = {name: number for number, name in enumerate(specification())}
        ordered = sorted(rows, key=lambda name: (_chapter(name), place.get(name, len(place))))
        return {chapter: [rows[name] for name in names] for chapter, names in groupby(ordered, _chapter)}

    @property
    def runs(self) -> list[RecordedRun]:
        """The runs of its cells, the earliest first."""
        runs = {id(run): run for column in self.columns for run in column.runs}
        return sorted(runs.values(), key=lambda run: run.date)


def merge(runs: Sequence[RecordedRun], *, implementations: Sequence[str] = ()) -> Matrix:
    """Merge runs into one column for each implementation, version of torch, and device.

    Each chapter of a column is from one run: the latest that has it, with a whole run before one of selected cases. A
    local and a distributed run make one column, and a later run of a chapter replaces an earlier one.

    Args:
        runs: the runs.
        implementations: the implementations to show; all if empty.

    Raises:
        BadRecord: if the runs are of different specifications, or none is of one of `implementations`.
    """
    for run in runs:
        if run.spec != runs[0].spec:
            raise BadRecord(
                f"record {run.path}: of specification {run.spec}, but {runs[0].path} is of {runs[0].spec}; "
                "make both with one version of the suite"
            )
    groups: dict[tuple[str, str, str], list[RecordedRun]] = {}
    for run in runs:
        for name in run.implementations:
            groups.setdefault((name, run.torch, run.device), []).append(run)
    for name in implementations:
        if name not in {key[0] for key in groups}:
            known = ", ".join(dict.fromkeys(key[0] for key in groups))
            raise BadRecord(f"no record is of implementation {name!r}; there are: {known or 'none'}")
    columns = [
        Column(*key, cells=_cells(key[0], group))
        for key, group in groups.items()
        if not implementations or key[0] in implementations
    ]
    return Matrix(tuple(replace(column, label=_label(column, columns)) for column in columns))


def _cells(implementation: str, runs: Iterable[RecordedRun]) -> dict[str, Cell]:
    chapters: dict[str, dict[str, Cell]] = {}
    for run in sorted(runs, key=lambda run: (run.whole, run.date)):
        cases: dict[str, list[CaseRecord]] = {}
        for case in run.cases:
            if case.implementation == implementation:
                cases.setdefault(case.requirement, []).append(case)
        records = [record for record in run.requirements if record.implementation == implementation]
        for chapter, rows in groupby(records, lambda record: _chapter(record.requirement)):
            cells = {row.requirement: Cell(row, tuple(cases.get(row.requirement, ())), run) for row in rows}
            # Chapters that were not selected, or whose extra was not installed, must not replace results.
            if chapter not in chapters or any(cell.cases and cell.requirement.applies for cell in cells.values()):
                chapters[chapter] = cells
    return {name: cell for cells in chapters.values() for name, cell in cells.items()}


def _label(column: Column, columns: Iterable[Column]) -> str:
    """Return the name, with the torch version and device if they tell columns of the same name apart."""
    others = [other for other in columns if other is not column and other.implementation == column.implementation]
    differing = [
        value
        for name, value in (("torch", f"torch {column.torch}"), ("device", column.device))
        if any(getattr(other, name) != getattr(column, name) for other in others)
    ]
    return f"{column.implementation} ({', '.join(differing)})" if differing else column.implementation


def _chapter(requirement: str) -> str:
    return requirement.partition("/")[0]
