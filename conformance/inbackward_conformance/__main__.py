"""The commands besides a pytest run: `python -m inbackward_conformance`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inbackward_conformance.findings.command import add_findings
from inbackward_conformance.own_model.command import add_check
from inbackward_conformance.ranks import NotUnderTorchrun
from inbackward_conformance.report.matrix.render import Format, render
from inbackward_conformance.report.matrix.table import merge
from inbackward_conformance.report.read_record import BadRecord, read_record
from inbackward_conformance.specification import SPEC_VERSION, chapter_text, specification

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUFFIXES = {".html": Format.HTML, ".md": Format.MARKDOWN, ".svg": Format.BADGE}

ABOUT_OPTIMIZERS = """\
Where a requirement names no optimizer class, any class has to keep it. An implementation that takes any class is tested
with classes of `torch.optim`. One with classes of its own, which its adapter declares as `own_optimizers`, is tested
with these: each need of a requirement (a class that keeps state, another class than the first, …) is bound to one that
meets it, and a requirement that is run with several optimizers is run with every declared class. If none meets a need,
the case is `not offered`, and the reason says which need it is."""
"""What the specification says of optimizer classes."""

ABOUT_MUTANTS = """\
`nox -s mutants` runs broken implementations, mutants, over the suite: at least one for each requirement, each made from
a sound implementation with one defect. A mutant is caught if its requirement fails, and not for what the implementation
that it is made from does as well. The mutants of requirements that need the libraries of an extra are run by a session
of its name, such as `nox -s architectures`, which fails if one is not caught. The table does not count them."""


class BadOutput(ValueError):
    """Raised when a document cannot be written as asked; the message is one line with the remedy."""


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
        choices=[str(each) for each in Format],
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

    add_findings(commands)
    add_check(commands)

    distributed = commands.add_parser(
        "distributed",
        help="run the distributed chapters on the ranks of torchrun, or dry",
        add_help=False,
        prefix_chars="\0",
    )
    distributed.add_argument("options", nargs=argparse.REMAINDER, metavar="...")
    distributed.set_defaults(run=lambda args: run_distributed(args.options))

    args = parser.parse_args(arguments)
    try:
        status: int = args.run(args) or 0
        sys.stdout.flush()
    except (BadRecord, BadOutput, NotUnderTorchrun) as error:
        parser.error(str(error))
    except BrokenPipeError:  # the reader, `head` for example, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def make_matrix(args: argparse.Namespace) -> None:
    """Write the matrix of records.

    Raises:
        BadOutput: if the name of the output does not imply a format, or the file cannot be written.
    """
    if args.format is None and args.output and args.output.suffix not in SUFFIXES:
        raise BadOutput(f"{args.output}: say --format {', '.join(Format)}, or use a name with {', '.join(SUFFIXES)}")
    by_name = SUFFIXES[args.output.suffix] if args.output and not args.format else Format.MARKDOWN
    output_format = Format(args.format) if args.format else by_name
    runs = [read_record(path) for path in args.records]
    text = render(merge(runs, implementations=args.implementation), output_format, may_refuse_only=args.may_refuse)
    if args.output is None:
        print(text, end="")
        return
    try:
        args.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadOutput(f"{args.output}: cannot be written ({error.strerror}); check the path") from error


def run_distributed(options: Sequence[str]) -> int:
    """Run the distributed chapters, as one rank of torchrun or as a dry run."""
    parser = argparse.ArgumentParser(
        prog="python -m inbackward_conformance distributed",
        description="Run the distributed chapters, as one rank of torchrun. On eight ranks and more, plans have more "
        "ranks, too.",
        epilog="All other options go to pytest. Example: "
        "torchrun --nproc-per-node 4 -m inbackward_conformance distributed --implementation NAME",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dry-run",
        action="append",
        type=number_of_ranks,
        metavar="RANKS",
        help="without torchrun: build, shard and attach the plans for so many ranks on one rank of a fake process "
        "group, and compare no values",
    )
    args, of_pytest = parser.parse_known_args(options)
    if args.dry_run and len(args.dry_run) > 1:
        parser.error("--dry-run is for one number of ranks; run the command once for each")
    from inbackward_conformance.plugin.distributed import run_dry, run_on_cluster  # noqa: PLC0415 (needs torch)

    return run_dry(args.dry_run[0], of_pytest) if args.dry_run else run_on_cluster(of_pytest)


def number_of_ranks(text: str) -> int:
    """Return a number of ranks; argparse prints the message of the error."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of ranks; give one such as 1024")
    return int(text)


def print_script(args: argparse.Namespace) -> None:
    """Print a script that reproduces a recorded failure."""
    from inbackward_conformance.adapters.find import UnusableImplementation  # noqa: PLC0415 (the other commands need none)
    from inbackward_conformance.repro.failure import CannotWrite  # noqa: PLC0415
    from inbackward_conformance.repro.from_record import find_failure  # noqa: PLC0415
    from inbackward_conformance.repro.reproduce import source_of_failure  # noqa: PLC0415

    failure = find_failure(args.record, args.requirement, args.implementation, args.case)
    try:
        with redirect_stdout(sys.stderr):  # a library may print what it likes when its optimizers are made
            source = source_of_failure(failure)
        print(source, end="")
    except (CannotWrite, UnusableImplementation) as error:
        raise BadRecord(f"record {args.record}: {args.requirement} has no script: {error}") from error


def list_requirements() -> None:
    """Print the level, id and conditions of each requirement, one per line."""
    for requirement in specification().values():
        refusal = f"  may refuse {requirement.may_refuse}" if requirement.may_refuse else ""
        needs = f"  needs {requirement.needs}" if requirement.needs else ""
        accelerator = "  on an accelerator" if requirement.accelerator else ""
        torch = f"  with torch {requirement.torch}" if requirement.torch else ""
        extra = f"  with the extra {requirement.extra}" if requirement.extra else ""
        print(f"{requirement.level:<6} {requirement.id}{refusal}{needs}{accelerator}{torch}{extra}")


def print_specification(args: argparse.Namespace) -> None:
    """Print the specification."""
    try:
        traces = json.loads(args.traces.read_text(encoding="utf-8")) if args.traces else {}
        text = specification_text(traces)
    except OSError as error:
        raise BadOutput(f"{args.traces}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise BadOutput(f"{args.traces}: no file of traces; `nox -s mutants -- --accept` writes one") from error
    print(text, end="")


def specification_text(traces: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the specification as Markdown.

    `traces` holds by requirement the number of `cases`, the names of its `mutants` (broken implementations), and how
    many of them were `run` and `caught`.
    """
    parts = [f"# Optimizer in backward: specification {SPEC_VERSION}", ABOUT_OPTIMIZERS]
    chapter = ""
    for requirement in specification().values():
        if requirement.chapter != chapter:
            chapter = requirement.chapter
            parts += [f"## {chapter}", chapter_text(chapter)]
        refusal = f", may refuse {requirement.may_refuse}" if requirement.may_refuse else ""
        accelerator = ", on an accelerator" if requirement.accelerator else ""
        torch = f", with torch {requirement.torch}" if requirement.torch else ""
        extra = f", with the extra {requirement.extra}" if requirement.extra else ""
        parts += [f"### {requirement.id} ({requirement.level}{refusal}{accelerator}{torch}{extra})", requirement.text]
        if trace := traces.get(requirement.id):
            names = ", ".join(f"`{name}`" for name in trace["mutants"])
            parts.append(f"*Cases: {trace['cases']}. Mutants that it catches: {names}.*")
    if traces:
        parts += ["## Proof that the suite can fail", ABOUT_MUTANTS, score(traces)]
    return "\n\n".join(parts) + "\n"


def score(traces: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a Markdown table of the mutants run and caught, by chapter."""
    chapters = dict.fromkeys(requirement.chapter for requirement in specification().values())
    counts = {chapter: [0, 0] for chapter in (*chapters, "**all**")}
    for name, trace in traces.items():
        for row in (name.partition("/")[0], "**all**"):
            counts[row] = [counts[row][0] + trace["run"], counts[row][1] + trace["caught"]]
    rows = [f"| {chapter} | {run} | {caught} |" for chapter, (run, caught) in counts.items()]
    return "\n".join(["| chapter | mutants | caught |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    sys.exit(main())
