"""The file of expected failures of one implementation: the entries, and the findings that explain them.

The files are TOML:

    implementation = "torch"

    [[expected]]
    requirement = "sharing/listed_twice"
    cause = "text that must appear in the failure"
    link = "https://…"
    outcome = "hangs"    # required for error, hangs and crashes
    device = "cpu"       # only if it fails on this kind of device alone
    torch = ">=2.12"     # only if it fails with these versions of torch alone, as pip writes them

A finding is one defect with a description for readers; the entries that it explains name it in the place of a link:

    [[finding]]
    id = "hooked-once-a-listing"
    title = "A parameter that is listed twice is stepped twice"
    what = "Each time that a parameter is listed, another hook is registered on it, and …"
    who = "Models with tied weights, where …"
    since = "1.0"        # the first version that has it, if that is known
    link = "https://…"

    [[expected]]
    requirement = "sharing/listed_twice"
    cause = "text that must appear in the failure"
    finding = "hooked-once-a-listing"
"""

from __future__ import annotations

import re
from dataclasses import asdict, astuple, dataclass, fields
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from inbackward_conformance.compatibility import tomllib
from inbackward_conformance.outcome import NEVER_EXCUSED_BY_CAUSE_ALONE, Finding, Outcome
from inbackward_conformance.specification import specification
from inbackward_conformance.versions import contains

if TYPE_CHECKING:
    from pathlib import Path


class BadExpectations(ValueError):
    """Raised when a file of expected failures cannot be used; the message is one line with the remedy."""


@dataclass(frozen=True)
class ExpectedFailure:
    """One entry: `requirement` fails with `cause` in the detail.

    Attributes:
        link: where the failure is tracked.
        outcome: the outcome that it covers; any but error, hangs and crashes if empty.
        device: the kind of device that it holds for; any if empty.
        torch: the versions of torch that it holds for; any if empty.
        finding: the id of the finding that explains it.
    """

    requirement: str
    cause: str
    link: str = ""
    outcome: str = ""
    device: str = ""
    torch: str = ""
    finding: str = ""

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


@dataclass(frozen=True)
class KnownFinding:
    """One defect of an implementation, for readers.

    Attributes:
        id: words in lower case, joined by hyphens; unique in its file.
        title: what goes wrong, in one line.
        what: what happens, and why.
        who: whose training it changes or ends.
        since: the first version that has it; empty if that is not known.
        link: the source of it, or where it is tracked.
    """

    id: str
    title: str
    what: str
    who: str
    link: str
    since: str = ""


@dataclass(frozen=True)
class ExpectationsFile:
    """What a file holds."""

    implementation: str
    entries: tuple[ExpectedFailure, ...]
    findings: tuple[KnownFinding, ...]

    @property
    def unexplained(self) -> list[str]:
        """A message for each entry that no finding explains."""
        return [
            f"{self.implementation}: {entry.requirement} is expected to fail, and no finding says why"
            for entry in self.entries
            if not entry.finding
        ]

    def explained_by(self, finding: KnownFinding) -> list[ExpectedFailure]:
        """Return the entries that a finding explains."""
        return [entry for entry in self.entries if entry.finding == finding.id]


def read_expectations(path: Path) -> ExpectationsFile:
    """Return what a file holds.

    Raises:
        BadExpectations: it cannot be read, or an entry or a finding cannot be used.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        file = ExpectationsFile(
            str(content["implementation"]),
            tuple(ExpectedFailure(**entry) for entry in content.get("expected", [])),
            tuple(KnownFinding(**finding) for finding in content.get("finding", [])),
        )
    except OSError as error:
        raise BadExpectations(f"expected failures {path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        keys, of_finding = (", ".join(each.name for each in fields(kind)) for kind in (ExpectedFailure, KnownFinding))
        raise BadExpectations(
            f"expected failures {path}: {error}. Give `implementation` and [[expected]] tables with {keys}, and, "
            f"if you describe them, [[finding]] tables with {of_finding}"
        ) from error
    _check_entries(path, file)
    _check_findings(path, file)
    return file


def _check_entries(path: Path, file: ExpectationsFile) -> None:
    seen: set[tuple[str, str, str, str]] = set()
    ids = {finding.id for finding in file.findings}
    for entry in file.entries:
        where = f"expected failures {path}: {entry.requirement}"
        if not all(isinstance(value, str) for value in astuple(entry)):
            raise BadExpectations(f"{where}: every value is text; put it in quotes")
        if entry.requirement not in specification():
            raise BadExpectations(f"{where}: no such requirement; `python -m inbackward_conformance list` lists them")
        if not entry.cause:
            raise BadExpectations(f"{where}: the cause is empty; give text that the failure's detail must contain")
        if not entry.link and not entry.finding:
            raise BadExpectations(f"{where}: say where it is tracked by a link, or name the finding that explains it")
        if entry.finding and entry.finding not in ids:
            raise BadExpectations(f"{where}: the file has no finding {entry.finding!r}; add a [[finding]] of this id")
        if entry.outcome and entry.outcome not in list(Outcome):
            raise BadExpectations(f"{where}: unknown outcome {entry.outcome!r}; known: {', '.join(Outcome)}")
        try:
            SpecifierSet(entry.torch)
        except InvalidSpecifier as error:
            raise BadExpectations(f"{where}: torch = {entry.torch!r}: write versions as in '>=2.12,<2.14'") from error
        if (entry.requirement, entry.cause, entry.device, entry.torch) in seen:
            raise BadExpectations(f"{where}: listed twice with the cause {entry.cause!r}; remove one")
        seen.add((entry.requirement, entry.cause, entry.device, entry.torch))


def _check_findings(path: Path, file: ExpectationsFile) -> None:
    seen: set[str] = set()
    for finding in file.findings:
        where = f"expected failures {path}: finding {finding.id!r}"
        values = asdict(finding)
        if not all(isinstance(value, str) for value in values.values()):
            raise BadExpectations(f"{where}: every value is text; put it in quotes")
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", finding.id):
            raise BadExpectations(f"{where}: an id is words in lower case, joined by hyphens, as in 'listed-twice'")
        if empty := [name for name, value in values.items() if name != "since" and not value.strip()]:
            raise BadExpectations(f"{where}: {', '.join(empty)} is empty; write it for a reader of the page")
        if finding.id in seen:
            raise BadExpectations(f"{where}: there are two of this id; rename one")
        if not file.explained_by(finding):
            raise BadExpectations(f"{where}: it explains no expected failure; remove it, or name it in an entry")
        seen.add(finding.id)
