"""Writes the results as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.models import WORKLOADS
from bench.targets import targets
from bench.variants import VARIANTS, baseline_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.results import Result, Results
    from bench.targets import Target

INTRODUCTION = """\
# Benchmark

What a step of training costs, and how much memory it takes, in the standard loop and with the optimizer in backward.
`nox -s bench -- --docs docs` makes this page.

{picture}
"""
ALT = "Time of a step over the fused standard loop's, for three optimizers on four models; peak gradient bytes"

METHOD = """\
## How it was measured

- All variants run in one process and take turns, in random order: a step of each, then a step of each again. They
  start from copies of one model. Those without `fused` and those with it are two groups; the baseline is in both.
- Rounds: {rounds}, each on new copies, after {warm_up} steps to warm up. A ratio is that of the medians of a
  round, and of all rounds the median.
- Python's garbage collector runs before each round, and not during it.
- Peak gradient bytes are counted by weak references to the storages of gradients, whenever backward passes one to a
  parameter. The embedding of GPT-2 small is used twice: what waits in autograd for the other part of its gradient is
  not counted, in no variant. The peak allocation is everything that operators allocate in a step, and not what was
  there before: parameters and optimizer state.
- Models: *200 small* is 100 Linear layers of width 16, with bias; *96 of 256²* and *12 of 1024²* are Linear layers
  without bias; *GPT-2 small* has 12 layers of width 768, a vocabulary of 8,192, a context of 16 tokens, batch 1, and
  its embedding is the output layer too.
"""


def picture(name: str, alt: str) -> str:
    """Return the plot of this name, light or dark as the reader's page is."""
    return f"""<picture>
  <source media="(prefers-color-scheme: dark)" srcset="{name}-dark.svg">
  <img src="{name}-light.svg"
       alt="{alt}">
</picture>"""


def page(results: Results, rounds: str, warm_up: int) -> str:
    """Return the page in Markdown."""
    optimizers = [*dict.fromkeys(each.optimizer for each in results.found)]
    introduction = INTRODUCTION.format(picture=picture("bench", ALT))
    parts = [introduction, "## Machine\n", table(["", ""], [[*row] for row in results.machine.items()])]
    parts.append(METHOD.format(rounds=rounds, warm_up=warm_up))
    for optimizer in optimizers:
        baseline = VARIANTS[baseline_of(optimizer)].label
        parts.append(f"## {optimizer}: time of a step over that of the {baseline}\n")
        parts.append("In brackets the quartiles in milliseconds.\n")
        parts.append(_by_model(results, optimizer, _time))
    for optimizer in optimizers:
        parts.append(f"## {optimizer}: peak gradient bytes / peak allocation, in MiB\n")
        parts.append(_by_model(results, optimizer, _memory))
    parts += ["## Targets\n", targets_table(targets(results))]
    return "\n".join(parts)


def targets_table(found: Iterable[Target]) -> str:
    """Return a table of targets in Markdown."""
    rows = [
        [
            target.what,
            target.where,
            f"{target.figure:.3f}",
            f"{target.limit:.2f}",
            "met" if target.is_met else "**missed**",
        ]
        for target in found
    ]
    return table(["figure", "where", "is", "at most", ""], rows)


def _by_model(results: Results, optimizer: str, cell: Callable[[Result], str]) -> str:
    models = [*results.model_bytes]
    rows = []
    for name, variant in VARIANTS.items():
        found = [results.get(model, optimizer, name) for model in models]
        if any(found):
            rows.append([variant.label, *(cell(each) if each else "" for each in found)])
    return table(["", *(WORKLOADS[model].label for model in models)], rows)


def _time(result: Result) -> str:
    first, second, third = (f"{each * 1e3:.3g}" if each < 1 else f"{each * 1e3:.0f}" for each in result.quartiles)
    return f"{result.ratio:.2f} ({first}, {second}, {third})"


def _memory(result: Result) -> str:
    return f"{result.peak_gradients / 2**20:.3g} / {result.peak_allocation / 2**20:.3g}"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
