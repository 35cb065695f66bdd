"""Runs the suite on each of some implementations, and leaves two records of each: here, and on ranks.

    python ci/record_each.py FOLDER NAME... [-- options of pytest]

One that cannot be imported here is no reason to say nothing of it: in its record every requirement is `not run`, with
the reason. The exit status is 1 if something failed that was not expected to.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from inbackward_conformance.adapters.find import UnusableImplementation, find_implementation
from inbackward_conformance.outcome import Outcome
from inbackward_conformance.report.record import CaseRecord, RecordFile, summarize
from inbackward_conformance.specification import DISTRIBUTED, specification

PARTS = {"": [], "-distributed": ["--distributed"]}
"""What is run, by what the names of the records end with."""


def main(folder: Path, names: list[str], options: list[str]) -> int:
    """Record all of them, and return the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = [name for name in names if not record(name, folder, options)]
    if failed:
        print(f"not as expected: {', '.join(failed)}")
    return 1 if failed else 0


def record(name: str, folder: Path, options: list[str]) -> bool:
    """Run the suite on one, and return whether all that failed was expected to."""
    reports = {part: folder / f"{name}{part}.jsonl" for part in PARTS}
    try:
        find_implementation(name)
    except UnusableImplementation as error:
        print(f"{name} is not run: {error}")
        for part, report in reports.items():
            record_not_run(name, report, str(error), distributed=bool(part))
        return True
    command = [sys.executable, "-m", "pytest", "--pyargs", "inbackward_conformance", "--implementation", name]
    codes = [
        subprocess.run([*command, "--conformance-report", str(report), *PARTS[part], *options], check=False).returncode
        for part, report in reports.items()
    ]
    return not any(codes)


def record_not_run(name: str, path: Path, reason: str, *, distributed: bool) -> None:
    """Write the record of an implementation of which nothing ran."""
    cases = [
        CaseRecord(name, found.id, "", found.level, Outcome.NOT_RUN, passed=True, detail=reason)
        for found in specification().values()
        if (found.chapter in DISTRIBUTED) == distributed
    ]
    with path.open("w", encoding="utf-8") as file:
        lines = RecordFile(file, {name: ""}, device="cpu", seed=0, profile="")
        for case in cases:
            lines.write_case(case)
        lines.finish({name: summarize(name, cases, [], "cpu")}, selection="nothing", whole=False)


if __name__ == "__main__":
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    sys.exit(main(Path(given[0]), given[1:end], given[end + 1 :]))
