"""Writes the table of `nox -s torch_versions`: what the suite says with each version of torch.

    python ci/torch_table.py FOLDER [-o FILE.md]

FOLDER holds the records, two for each version: here, and on ranks. The exit status is 1 if the reference is not
conformant with one of them, or if a record is of a run that did not reach its end.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from inbackward_conformance.outcome import Level
from inbackward_conformance.report.read_record import BadRecord, read_record
from inbackward_conformance.report.record import Standing, verdict
from inbackward_conformance.specification import specification

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inbackward_conformance.report.record import RequirementRecord

REFERENCE = ("reference", "reference-handed")

TITLE = """\
# Versions of torch

What the suite says of the reference implementation and of torch's own with each version of torch, on a CPU: kept of
those MUSTs that this torch can be tested on, here and on ranks. `nox -s torch_versions` makes the records, and
`python ci/torch_table.py build/torch_versions -o docs/torch.md` this page."""


@dataclass
class Column:
    """What was recorded with one version of torch.

    Attributes:
        torch: The version, with its build if the distribution names it.
        python: The version of Python.
        date: The day of the last run.
        requirements: The requirements of each implementation, by id.
    """

    torch: str
    python: str = ""
    date: str = ""
    requirements: dict[str, dict[str, RequirementRecord]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def implementations(self) -> tuple[str, ...]:
        """The names, in the order of the runs."""
        return tuple(self.requirements)

    def verdict_of(self, name: str) -> str:
        """Return the verdict on an implementation."""
        return verdict(self.requirements[name].values())

    def counts_of(self, name: str) -> str:
        """Return how many MUSTs it keeps, of those that count, and how many it does not offer."""
        musts = [each for each in self.requirements[name].values() if each.level == Level.MUST and each.applies]
        kept, not_offered = (
            sum(each.standing is standing for each in musts) for standing in (Standing.KEPT, Standing.NOT_OFFERED)
        )
        return f"{kept} of {len(musts)}" + (f", {not_offered} not offered" if not_offered else "")

    def state_of(self, name: str, requirement: str) -> str:
        """Return what is said of a requirement."""
        found = self.requirements.get(name, {}).get(requirement)
        if found is None:
            return "not recorded"
        return str(found.standing) if found.applies else "not in this torch"


def main(folder: Path, output: Path | None) -> int:
    """Write the table, and return the exit status."""
    columns, unusable = read_columns(folder)
    if not columns:
        print(*unusable, f"{folder}: no complete record there; run nox -s torch_versions", sep="\n")
        return 1
    text = "\n".join(page(columns)) + "\n"
    if output:
        output.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    bad = [
        f"torch {column.torch}: {name} is {column.verdict_of(name)}"
        for column in columns
        for name in REFERENCE
        if name in column.requirements and column.verdict_of(name) != "conformant"
    ]
    for line in (*unusable, *bad):
        print(line, file=sys.stderr)
    return 1 if unusable or bad else 0


def read_columns(folder: Path) -> tuple[list[Column], list[str]]:
    """Return a column for each version of torch, the oldest first, and why records were left out."""
    columns: dict[str, Column] = {}
    unusable: list[str] = []
    for path in sorted(folder.glob("*.jsonl")):
        try:
            run = read_record(path)
        except BadRecord as error:
            unusable.append(str(error))
            continue
        column = columns.setdefault(run.torch, Column(run.torch))
        column.python = run.python
        column.date = max(column.date, f"{run.date:%Y-%m-%d}")
        for requirement in run.requirements:
            column.requirements[requirement.implementation][requirement.requirement] = requirement
    return sorted(columns.values(), key=lambda column: Version(column.torch)), unusable


def page(columns: list[Column]) -> Iterator[str]:
    """Yield the lines of the page."""
    names = list(dict.fromkeys(name for column in columns for name in column.implementations))
    yield TITLE
    yield ""
    yield "| torch | Python | recorded | " + " | ".join(names) + " |"
    yield "|---" * (3 + len(names)) + "|"
    for column in columns:
        cells = [
            f"{column.verdict_of(name)}: {column.counts_of(name)}" if name in column.requirements else "not recorded"
            for name in names
        ]
        yield f"| {column.torch} | {column.python} | {column.date} | {' | '.join(cells)} |"
    yield ""
    yield "## What changes"
    yield ""
    changes = list(changed(columns, names))
    if not changes:
        yield "No requirement has another result with one version than with the version before."
        return
    yield "Requirements with another result than with the version before:"
    yield ""
    yield "| requirement | implementation | since torch | before | since then |"
    yield "|---|---|---|---|---|"
    yield from changes


def changed(columns: list[Column], names: list[str]) -> Iterator[str]:
    """Yield a line for each requirement whose result changes from one version to the next."""
    for requirement in specification():
        for name in names:
            for before, after in itertools.pairwise(columns):
                old, new = before.state_of(name, requirement), after.state_of(name, requirement)
                if old != new:
                    yield f"| `{requirement}` | {name} | {after.torch} | {old} | {new} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of the records")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.md", help="default: standard output")
    given = parser.parse_args()
    sys.exit(main(given.folder, given.output))
