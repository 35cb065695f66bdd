"""Expected failures: which are loaded, what they cover, and which are stale; `expectations_file` has the format."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Finding, Outcome
from inbackward_conformance.report.expectations_file import BadExpectations, ExpectedFailure, read_expectations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from inbackward_conformance.report.record import CaseRecord

SHIPPED = Path(__file__).parent.parent / "adapters" / "shipped"

Expectations = dict[str, list[ExpectedFailure]]
"""Expected failures by implementation."""


def load_expectations(implementations: Collection[str], files: Iterable[Path], device: str) -> Expectations:
    """Return the expected failures on `device` from `files`; the shipped file for an implementation without one.

    Those that hold for other devices, or other versions of torch than the one that is installed, are left out.
    """
    loaded: Expectations = {}
    for path in files:
        file = read_expectations(path)
        if file.implementation not in implementations:
            tested = ", ".join(implementations)
            raise BadExpectations(
                f"expected failures {path}: they are of {file.implementation!r}, which is not tested here; "
                f"tested: {tested}"
            )
        if file.implementation in loaded:
            raise BadExpectations(
                f"expected failures {path}: another file is of {file.implementation!r} too; make it one"
            )
        loaded[file.implementation] = list(file.entries)
    shipped = [SHIPPED / f"{name}.toml" for name in implementations if name not in loaded]
    loaded |= {file.implementation: list(file.entries) for file in map(read_expectations, filter(Path.exists, shipped))}
    kind, torch = device.partition(":")[0], version("torch")
    return {name: [entry for entry in entries if entry.holds_for(kind, torch)] for name, entries in loaded.items()}


def find_covering(entries: Iterable[ExpectedFailure], requirement: str, finding: Finding) -> ExpectedFailure | None:
    """Return the first entry that covers a failure; None if no entry does."""
    return next((entry for entry in entries if not finding.passed and entry.covers(requirement, finding)), None)


def find_stale(entries: Iterable[ExpectedFailure], cases: Iterable[CaseRecord]) -> list[ExpectedFailure]:
    """Return the entries whose requirement ran and that cover none of its failures."""
    cases = list(cases)
    ran = {case.requirement for case in cases if case.outcome not in {Outcome.NOT_RUN, Outcome.NOT_OFFERED}}
    failures = [(case.requirement, Finding(case.outcome, case.detail)) for case in cases if not case.passed]
    return [
        entry
        for entry in entries
        if entry.requirement in ran and not any(entry.covers(*failure) for failure in failures)
    ]
