"""Expected failures: the known failures of an implementation, with their causes.

The files are TOML:

    implementation = "torch"

    [[expected]]
    requirement = "sharing/listed_twice"
    cause = "text that must appear in the failure"
    link = "https://…"
    outcome = "hangs"    # required for error, hangs and crashes
    device = "cpu"       # only if it fails on this kind of device alone
    torch = ">=2.12"     # only if it fails with these versions of torch alone, as pip writes them
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from inbackward_conformance.compatibility import tomllib
from inbackward_conformance.outcome import NEVER_EXCUSED_BY_CAUSE_ALONE, Finding, Outcome
from inbackward_conformance.specification import specification
from inbackward_conformance.versions import contains

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from inbackward_conformance.report.record import CaseRecord

SHIPPED = Path(__file__).parent.parent / "adapters"


class BadExpectations(ValueError):
    """Raised when a file of expected failures cannot be used; the message is one line with the remedy."""


@dataclass(frozen=True)
class ExpectedFailure:
    """One entry: `requirement` fails with `cause` in the detail."""

    requirement: str
    cause: str
    link: str
    outcome: str = ""
    device: str = ""
    torch: str = ""

    def holds_for(self, device: str, torch: str) -> bool:
        """Return whether it fails on this kind of device, with this version of torch; a nightly build is as released.

        Where it does not hold, it neither covers a failure nor is stale.
        """
        return self.device in {"", device} and contains(SpecifierSet(self.torch), torch)

    def covers(self, requirement: str, finding: Finding) -> bool:
        """Return whether this entry covers a failure."""
        if requirement != self.requirement or self.cause not in finding.detail:
            return False
        if self.outcome:
            return finding.outcome == self.outcome
        return finding.outcome not in NEVER_EXCUSED_BY_CAUSE_ALONE


Expectations = dict[str, list[ExpectedFailure]]
"""Expected failures by implementation."""


def load_expectations(implementations: Collection[str], files: Iterable[Path], device: str) -> Expectations:
    """Return the expected failures on `device` from `files`; the shipped file for an implementation without one.

    Those that hold for other devices, or other versions of torch than the one that is installed, are left out.
    """
    loaded: Expectations = {}
    for path in files:
        implementation, entries = _load(path)
        if implementation not in implementations:
            tested = ", ".join(implementations)
            raise BadExpectations(
                f"expected failures {path}: they are of {implementation!r}, which is not tested here; tested: {tested}"
            )
        if implementation in loaded:
            raise BadExpectations(f"expected failures {path}: another file is of {implementation!r} too; make it one")
        loaded[implementation] = entries
    shipped = [SHIPPED / f"{name}.toml" for name in implementations if name not in loaded]
    loaded |= dict(_load(path) for path in shipped if path.exists())
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


def _load(path: Path) -> tuple[str, list[ExpectedFailure]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        implementation = str(content["implementation"])
        entries = [ExpectedFailure(**entry) for entry in content.get("expected", [])]
    except OSError as error:
        raise BadExpectations(f"expected failures {path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        keys = ", ".join(field.name for field in fields(ExpectedFailure))
        raise BadExpectations(
            f"expected failures {path}: {error}. Give `implementation` and [[expected]] tables with {keys}"
        ) from error
    _check(path, entries)
    return implementation, entries


def _check(path: Path, entries: list[ExpectedFailure]) -> None:
    seen: set[tuple[str, str, str, str]] = set()
    for entry in entries:
        where = f"expected failures {path}: {entry.requirement}"
        if not all(isinstance(value, str) for value in astuple(entry)):
            raise BadExpectations(f"{where}: every value is text; put it in quotes")
        if entry.requirement not in specification():
            raise BadExpectations(f"{where}: no such requirement; `python -m inbackward_conformance list` lists them")
        if not entry.cause:
            raise BadExpectations(f"{where}: the cause is empty; give text that the failure's detail must contain")
        if entry.outcome and entry.outcome not in list(Outcome):
            raise BadExpectations(f"{where}: unknown outcome {entry.outcome!r}; known: {', '.join(Outcome)}")
        try:
            SpecifierSet(entry.torch)
        except InvalidSpecifier as error:
            raise BadExpectations(f"{where}: torch = {entry.torch!r}: write versions as in '>=2.12,<2.14'") from error
        if (entry.requirement, entry.cause, entry.device, entry.torch) in seen:
            raise BadExpectations(f"{where}: listed twice with the cause {entry.cause!r}; remove one")
        seen.add((entry.requirement, entry.cause, entry.device, entry.torch))
