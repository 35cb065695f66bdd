"""Counts what a rank sends, keeps and steps in one step of training, as layers, parameters and ranks grow.

Prints tables and which targets were met; the exit status is 1 if one was missed. Nothing here is a time, and nothing
depends on the machine. It takes less than a minute, in one process.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def add_to(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `scale` to the command line."""
    parser = add_parser(
        "scale",
        help="count what a rank sends, keeps and steps as layers, parameters and ranks grow",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default, words in (
        ("--depths", [8, 16, 32, 64], "numbers of layers"),
        (
            "--widths",
            [512, 256, 128],
            "widths of layers, which divide the largest",
        ),
        ("--ranks", [1, 2, 4, 8, 64, 1024], "numbers of ranks"),
    ):
        listed = " ".join(map(str, default))
        parser.add_argument(name, type=_positive, nargs="+", metavar="N", default=default, help=f"{words} ({listed})")
    parser.add_argument(
        "--layers",
        type=_positive,
        metavar="N",
        default=16,
        help="layers of the largest width where depth is fixed (16)",
    )
    parser.add_argument(
        "--bucket-bytes", type=_positive, metavar="N", default=4 << 20, help="of step_in_backward and DDP (4 MiB)"
    )
    # SUPPRESS: what stands before the word "scale" is not overwritten.
    absent = argparse.SUPPRESS
    parser.add_argument("--json", type=Path, metavar="FILE", default=absent, help="write all counts to this file")
    parser.add_argument(
        "--docs", type=Path, metavar="FOLDER", default=absent, help="write scale.md and its plots into this folder"
    )
    parser.set_defaults(run=partial(_run, parser))


def _positive(given: str) -> int:
    number = int(given)
    if number < 1:
        msg = f"{given} is not above 0"
        raise argparse.ArgumentTypeError(msg)
    return number


def _run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    depths, widths, ranks = (sorted({*numbers}) for numbers in (given.depths, given.widths, given.ranks))
    if any(widths[-1] % width for width in widths):
        parser.error(
            f"--widths: {widths[-1]} is not a multiple of each of {widths}, so parameters cannot be cut evenly"
        )
    # Nothing of FSDP2 is to be loaded where times are measured.
    from bench.scale.measure import Setting, measure  # noqa: PLC0415
    from bench.scale.report import print_tables, write_docs  # noqa: PLC0415
    from bench.scale.targets import targets  # noqa: PLC0415

    counts = measure(Setting(depths, given.layers, widths[::-1], ranks, given.bucket_bytes))
    print_tables(counts)
    if given.json:
        counts.write(given.json)
    if given.docs:
        write_docs(counts, given.docs)
    return 0 if all(target.is_met for target in targets(counts)) else 1
