"""The door to everything that is not a pytest run: `python -m inbackward_conformance`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inbackward_conformance.ranks import NotUnderTorchrun
from inbackward_conformance.report.matrix.render import Format, render
from inbackward_conformance.report.matrix.table import merge
from inbackward_conformance.report.read_record import BadRecord, read_record
from inbackward_conformance.specification import SPEC_VERSION, chapter_text, specification

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUFFIXES = {".html": Format.HTML, ".md": Format.MARKDOWN, ".svg": Format.BADGE}


SCORE = """\
`nox -s mutants` runs broken implementations, mutants, over the suite: at least one for each requirement, each made from
a sound implementation with one defect. A mutant is caught if its requirement fails, and not for what the implementation
that it is made from does as well."""


class BadOutput(ValueError):
    """A matrix cannot be written as asked; the message is one line with the remedy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m inbackward_conformance", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="list the requirements with their levels")
    listing.set_defaults(run=lambda _: list_requirements())

    spec = commands.add_parser("spec", help="print the specification as Markdown")
    spec.add_argument(
        "--traces",
        type=Path,
        metavar="FILE.json",
        help="cases and mutants by requirement, which this project's own tests write",
    )
    spec.set_defaults(run=print_specification)

    matrix = commands.add_parser("matrix", help="make a page, a Markdown table or a badge of records")
    matrix.add_argument("records", nargs="+", type=Path, metavar="FILE.jsonl", help="what --conformance-report wrote")
    matrix.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: standard output")
    matrix.add_argument(
        "--format",
        type=Format,
        choices=list(Format),
        help="default: what the name of the output says, .html, .md or .svg (badge); without an output, markdown",
    )
    matrix.add_argument(
        "--implementation", action="append", default=[], metavar="NAME", help="only this one (repeatable; default: all)"
    )
    matrix.add_argument("--may-refuse", action="store_true", help="only the requirements that accept a refusal")
    matrix.set_defaults(run=make_matrix)

    repro = commands.add_parser(
        "repro",
        help="print a script that reproduces a failure, by torch and what failed alone",
        description="Print a Python file that reproduces a failure: torch and the calls of what failed, nothing of the "
        "suite. It ends with the difference that was observed, and a status other than 0.",
        epilog="example: python -m inbackward_conformance repro r.jsonl sharing/listed_twice_with_state > failure.py",
    )
    repro.add_argument("record", type=Path, metavar="FILE.jsonl", help="what --conformance-report wrote")
    repro.add_argument("requirement", metavar="REQUIREMENT", help="as in sharing/listed_twice")
    repro.add_argument("--implementation", default="", metavar="NAME", help="where the record holds several that fail")
    repro.add_argument("--case", metavar="ID", help="which case; the first one that failed by default")
    repro.set_defaults(run=print_script)

    distributed = commands.add_parser(
        "distributed",
        help="run the distributed chapters on the ranks of torchrun; all options go to pytest",
        prefix_chars="\0",
    )
    distributed.add_argument("options", nargs=argparse.REMAINDER, metavar="...")
    distributed.set_defaults(run=lambda given: run_distributed(given.options))

    given = parser.parse_args(arguments)
    try:
        status: int = given.run(given) or 0
        sys.stdout.flush()
    except (BadRecord, BadOutput, NotUnderTorchrun) as error:
        parser.error(str(error))
    except BrokenPipeError:  # whoever reads, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def make_matrix(given: argparse.Namespace) -> None:
    """Write what `matrix` was asked for.

    Raises:
        BadOutput: the format cannot be told from the name of the output, or that file cannot be written.
    """
    if given.format is None and given.output and given.output.suffix not in SUFFIXES:
        raise BadOutput(f"{given.output}: say --format {', '.join(Format)}, or use a name with {', '.join(SUFFIXES)}")
    form = given.format or (SUFFIXES[given.output.suffix] if given.output else Format.MARKDOWN)
    runs = [read_record(path) for path in given.records]
    text = render(merge(runs, implementations=given.implementation), form, may_refuse_only=given.may_refuse)
    if given.output is None:
        print(text, end="")
        return
    try:
        given.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadOutput(f"{given.output}: cannot be written ({error.strerror}); check the path") from error


def run_distributed(options: Sequence[str]) -> int:
    """Run the chapters that need several processes, as one rank of torchrun."""
    from inbackward_conformance.plugin.torchrun import run_on_cluster  # noqa: PLC0415 (the other commands need no torch)

    return run_on_cluster(options)


def print_script(given: argparse.Namespace) -> None:
    """Print the script of a failure that a record holds."""
    from inbackward_conformance.adapters.find import UnusableImplementation  # noqa: PLC0415 (the other commands need none)
    from inbackward_conformance.repro.call_templates import CannotWrite  # noqa: PLC0415
    from inbackward_conformance.repro.from_record import find_failure  # noqa: PLC0415
    from inbackward_conformance.repro.reproduce import source_of_failure  # noqa: PLC0415

    failure = find_failure(given.record, given.requirement, given.implementation, given.case)
    try:
        print(source_of_failure(failure), end="")
    except (CannotWrite, UnusableImplementation) as error:
        raise BadRecord(f"record {given.record}: {given.requirement} has no script: {error}") from error


def list_requirements() -> None:
    """Print a line for each requirement: level, id, and the latest moment of a refusal."""
    for requirement in specification().values():
        refusal = f"  may refuse {requirement.may_refuse}" if requirement.may_refuse else ""
        needs = f"  needs {requirement.needs}" if requirement.needs else ""
        accelerator = "  on an accelerator" if requirement.accelerator else ""
        print(f"{requirement.level:<6} {requirement.id}{refusal}{needs}{accelerator}")


def print_specification(given: argparse.Namespace) -> None:
    """Print all chapters and normative texts."""
    print(specification_text(json.loads(given.traces.read_text(encoding="utf-8")) if given.traces else {}), end="")


def specification_text(traces: Mapping[str, Mapping[str, Any]]) -> str:
    """Return all chapters and normative texts as Markdown.

    `traces` says of requirements how many `cases` they have, which `mutants`, broken implementations, are for them, how
    many of those were `run`, and how many `caught`.
    """
    parts = [f"# Optimizer in backward: specification {SPEC_VERSION}"]
    if traces:
        parts += ["## Proof that the suite can fail", SCORE, score(traces)]
    chapter = ""
    for requirement in specification().values():
        if requirement.chapter != chapter:
            chapter = requirement.chapter
            parts += [f"## {chapter}", chapter_text(chapter)]
        refusal = f", may refuse {requirement.may_refuse}" if requirement.may_refuse else ""
        accelerator = ", on an accelerator" if requirement.accelerator else ""
        parts += [f"### {requirement.id} ({requirement.level}{refusal}{accelerator})", requirement.text]
        if trace := traces.get(requirement.id):
            names = ", ".join(f"`{name}`" for name in trace["mutants"])
            parts.append(f"*Cases: {trace['cases']}. Mutants that it catches: {names}.*")
    return "\n\n".join(parts) + "\n"


def score(traces: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a Markdown table: of the mutants of each chapter how many were run and caught."""
    chapters = dict.fromkeys(requirement.chapter for requirement in specification().values())
    counted = {chapter: [0, 0] for chapter in (*chapters, "**all**")}
    for name, trace in traces.items():
        for row in (name.partition("/")[0], "**all**"):
            counted[row] = [counted[row][0] + trace["run"], counted[row][1] + trace["caught"]]
    rows = [f"| {chapter} | {run} | {caught} |" for chapter, (run, caught) in counted.items()]
    return "\n".join(["| chapter | mutants | caught |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    sys.exit(main())
