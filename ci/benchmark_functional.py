"""What `step_param` of a functional optimizer costs, beside `torch.optim.X([p]).step()` and torch's own functional.

    python ci/benchmark_functional.py [--small 8] [--large 1000000] [--rounds 200] [NAME ...]

The three take turns within one run, so that they meet the same machine; times are medians of the faster half of the
rounds. Of torch's own, those classes are measured that have `step_param`.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.optim.utils import functional_optim_map

import inbackward

if TYPE_CHECKING:
    from collections.abc import Callable

OURS, CLASS, TORCH = "step_param", "torch.optim", "torch functional"
OPTIONS: dict[str, dict[str, Any]] = {"SGD": {}, "SGD with momentum": {"momentum": 0.9}} | {
    name: {} for name in ("Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "RMSprop", "Rprop")
}


def contestants(name: str, elements: int) -> dict[str, Callable[[], object]]:
    """Return a step by each, over a parameter and a gradient of its own."""
    optimizer_class = getattr(torch.optim, name.partition(" ")[0])
    options = {"lr": 1e-3} | OPTIONS[name]
    params = [torch.nn.Parameter(torch.ones(elements)) for _ in range(3)]
    grads = [torch.full((elements,), 0.1) for _ in range(3)]
    ours = inbackward.functional_optimizer(optimizer_class, params[:1], **options)
    params[1].grad = grads[1]
    found: dict[str, Callable[[], object]] = {
        OURS: lambda: ours.step_param(params[0], grads[0]),
        CLASS: optimizer_class(params[1:2], **options).step,
    }
    theirs = functional_optim_map[optimizer_class](params[2:], **options)
    if hasattr(theirs, "step_param"):
        found[TORCH] = lambda: theirs.step_param(params[2], grads[2])
    return found


def microseconds(steps: dict[str, Callable[[], object]], rounds: int, at_once: int) -> dict[str, float]:
    """Measure them in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            for _ in range(at_once):
                step()
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - started) / at_once * 1e6)
    return {name: statistics.median(sorted(taken)[: (len(taken) + 1) // 2]) for name, taken in times.items()}


def main() -> None:
    """Print a line for each class and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(OPTIONS)}; none: all of them")
    parser.add_argument("--small", type=int, default=8, metavar="N", help="elements of the small parameter")
    parser.add_argument("--large", type=int, default=1_000_000, metavar="N", help="elements of the large one")
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="a tenth of it for the large one")
    given = parser.parse_args()
    if unknown := set(given.names) - set(OPTIONS):
        parser.error(f"no such optimizer: {', '.join(sorted(unknown))}; known: {', '.join(OPTIONS)}")
    torch.set_num_threads(1)
    for elements, rounds, at_once in ((given.small, given.rounds, 20), (given.large, max(given.rounds // 10, 1), 1)):
        print(f"{elements} elements, one thread   {OURS:>10}   / {CLASS}   / {TORCH}")
        for name in given.names or OPTIONS:
            taken = microseconds(contestants(name, elements), rounds, at_once)
            beside = f"{taken[OURS] / taken[TORCH]:18.2f}" if TORCH in taken else f"{'none':>18}"
            print(f"  {name:24} {taken[OURS]:10.1f} us {taken[OURS] / taken[CLASS]:13.2f} {beside}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
