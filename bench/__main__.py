"""Measures what a step of training costs, and how much memory, in each way of stepping an optimizer.

    python -m bench [--models NAME ...] [--optimizers NAME ...] [--variants NAME ...] [--docs docs]
    python -m bench scale [--docs docs]

Prints the time of a step, its ratio to the fused standard loop (for Adafactor, which has no fused, the default one),
the peak memory, and which targets were met. All names:

    models       {models}
    optimizers   {optimizers}
    variants     {variants}

"backward" is forward and backward alone; "loop" the standard loop; "torch" torch's own _apply_optimizer_in_backward;
"tutorial" the recipe of PyTorch's tutorial; "apply" inbackward.apply_optimizer_in_backward; "handed-4M"
inbackward.step_in_backward with buckets of 4 MiB.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
import warnings
from pathlib import Path

import torch

from bench.machine import describe
from bench.measure import WARM_UP_STEPS, Setting, measure
from bench.models import WORKLOADS
from bench.page import page
from bench.results import Results
from bench.scale import command as scale
from bench.targets import targets
from bench.variants import OPTIMIZERS, VARIANTS


def main() -> int:
    """Do what the command line asks for. Return the exit status."""
    given = _parser().parse_args()
    status: int = given.run(given)
    return status


def _measure_times(given: argparse.Namespace) -> int:
    if given.read:
        results, *others = map(Results.read, given.read)
        for other in others:
            results.add(other)
        if given.json:
            results.write(given.json)
    else:
        torch.set_num_threads(given.threads)
        setting = Setting(given.seconds, given.laps, given.rounds, given.device)
        machine = describe(given.device, given.threads)
        for results in measure(setting, given.models, given.optimizers, given.variants, machine):
            if given.json:  # what a run that is interrupted has measured is kept
                results.write(given.json)
    _print(results)
    if given.docs:
        from bench.plot import plot  # noqa: PLC0415 -- the others need no matplotlib

        given.docs.mkdir(parents=True, exist_ok=True)
        counts = sorted({len(each.seconds) for each in results.found})
        rounds = " or ".join(map(str, counts)) + (", by the model" if len(counts) > 1 else "")
        (given.docs / "bench.md").write_text(page(results, rounds, WARM_UP_STEPS), encoding="utf-8")
        for theme in ("light", "dark"):
            plot(results, given.docs / f"bench-{theme}.svg", theme)
    return 0


def _parser() -> argparse.ArgumentParser:
    names = {
        kind: textwrap.fill(" ".join(known), 100, subsequent_indent=" " * 17, break_on_hyphens=False)
        for kind, known in (("models", WORKLOADS), ("optimizers", OPTIMIZERS), ("variants", VARIANTS))
    }
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=(__doc__ or "").format(**names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for kind, known in (("models", WORKLOADS), ("optimizers", OPTIMIZERS), ("variants", VARIANTS)):
        parser.add_argument(
            f"--{kind}",
            nargs="+",
            choices=[*known],
            default=[*known],
            metavar="NAME",
            help=f"which {kind}; default: all",
        )
    accelerator = torch.accelerator.current_accelerator()
    devices = ["cpu", *([accelerator.type] if accelerator else [])]
    parser.add_argument(
        "--device", choices=devices, default="cpu", help="on an accelerator, times are those of events (%(choices)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.35, help="for each variant and round, at least (%(default)s)"
    )
    parser.add_argument("--laps", type=int, default=5, help="steps of each variant in a round, at least (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="each on new copies of the model (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch on the CPU (%(default)s)")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write all times and figures to this file, after each group of variants",
    )
    parser.add_argument(
        "--read", type=Path, nargs="+", metavar="FILE", help="measure nothing; read what --json has written"
    )
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help="write bench.md and the plots into this folder")
    parser.set_defaults(run=_measure_times)
    scale.add_to(parser.add_subparsers(title="instead of times", metavar="COMMAND").add_parser)
    return parser


def _print(results: Results) -> None:
    print("model  optimizer  variant                 ms (quartiles)              ratio   gradients  allocation (MiB)")
    for each in results.found:
        first, second, third = (1e3 * quartile for quartile in each.quartiles)
        sizes = f"{each.peak_gradients / 2**20:9.3f} {each.peak_allocation / 2**20:11.3f}"
        times = f"{second:9.2f} ({first:8.2f} {third:8.2f})"
        print(f"{each.model:6} {each.optimizer:10} {each.variant:18} {times} {each.ratio:9.3f}   {sizes}")
    print("\ntargets")
    for target in targets(results):
        print(f"  {target}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
