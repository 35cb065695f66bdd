"""The command `findings` of `python -m inbackward_conformance`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from inbackward_conformance.report.expectations_file import BadExpectations, ExpectationsFile, read_expectations
from inbackward_conformance.report.expected import SHIPPED
from inbackward_conformance.report.read_record import BadRecord, RecordedRun, read_record

DESCRIPTION = """\
Write the page of what is known to fail in each implementation of the records:
an entry for each [[finding]] of its expected failures, with the shortest script
that shows it. Each script is run. Without records, only the pages are made
anew, from the scripts that are there."""

EPILOG = """\
exit status: 0 if a script shows each finding, 1 if one is missing

example:
  python -m inbackward_conformance findings local.jsonl distributed.jsonl \\
      --expected known.toml -o findings"""


def add_findings(commands: Any) -> None:
    """Add the command to the commands of a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "findings",
        help="make pages of the known defects of an implementation, each with a script that shows it",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("records", nargs="*", type=Path, metavar="FILE.jsonl", help="what --conformance-report wrote")
    parser.add_argument(
        "--expected",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.toml",
        help="expected failures of one implementation, in place of those that the suite ships; repeatable",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="the folder to write into")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from inbackward_conformance.findings.pages import write_pages  # noqa: PLC0415 (the other commands need neither)
    from inbackward_conformance.findings.shown import BadFolder, read_shown  # noqa: PLC0415

    runs = [read_record(path) for path in args.records]
    names = list(dict.fromkeys(name for run in runs for name in run.implementations))
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadRecord(f"{args.output}: no folder can be made there ({error}); give another to -o") from error
    try:
        given = {file.implementation: file for file in map(read_expectations, args.expected)}
        shipped = {path.stem: read_expectations(path) for path in sorted(SHIPPED.glob("*.toml"))}
        files = {**shipped, **given}
        missing = [line for name in names for line in _choose(name, files, runs, args.output)]
        write_pages(args.output, read_shown(args.output), files.values())
    except (BadExpectations, BadFolder) as error:
        raise BadRecord(str(error)) from error
    for line in missing:
        print(f"missing: {line}")
    return 1 if missing else 0


def _choose(name: str, files: dict[str, ExpectationsFile], runs: list[RecordedRun], folder: Path) -> list[str]:
    """Choose the scripts of one implementation; return a message for each finding without one."""
    from inbackward_conformance.findings.choose import choose  # noqa: PLC0415 (it loads torch)

    file = files.get(name)
    if file is None or not file.entries:
        print(f"{name}: nothing is known to fail")
        return []
    if file.unexplained:
        return file.unexplained
    of_name = [run for run in runs if name in run.implementations]
    if len({(run.torch, run.device) for run in of_name}) > 1:
        raise BadRecord(f"records of {name} are of several versions of torch or devices; give those of one")
    return choose(file, of_name, folder, print)[1]
