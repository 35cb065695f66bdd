"""Runs the suite many times and says whether all records are the same, times and order aside.

    python ci/same_records.py --runs 20 -- --implementation reference --implementation torch -n 2
    python ci/same_records.py --alone reference torch -- -n 2

The first runs in random order. The second runs the implementations together, where they share the runs of the standard
loop, and then each alone, and prints what sharing saves.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TIMES = {"seconds"}

Cases = dict[tuple[str, str, str], dict[str, Any]]
"""What the record has of each case, by implementation, requirement and case."""


def main() -> int:
    """Return 0 if all runs agree with the first, 1 if one does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="how many (default 20); run N has the seed N")
    parser.add_argument(
        "--alone", nargs="+", metavar="NAME", help="run these implementations together, then each alone"
    )
    parser.add_argument("arguments", nargs="*", help="for pytest: --implementation and the like")
    given = parser.parse_args()
    return compare_alone(given.alone, given.arguments) if given.alone else compare_orders(given.runs, given.arguments)


def compare_orders(runs: int, arguments: list[str]) -> int:
    """Run the suite in several orders; return 0 if all records are the same."""
    first: Cases = {}
    for seed in range(runs):
        cases, took = run(seed, arguments)
        first = first or cases
        print(f"run {seed}: {len(cases)} cases, {took:.0f} s", flush=True)
        if print_differences(first, cases):
            return 1
    return 0


def compare_alone(names: list[str], arguments: list[str]) -> int:
    """Run implementations together and then each alone; return 0 if the records are the same."""
    together, took = run(0, [*(f"--implementation={name}" for name in names), *arguments])
    print(f"together: {len(together)} cases, {took:.0f} s", flush=True)
    differing = 0
    alone = []
    for name in names:
        cases, seconds = run(0, [f"--implementation={name}", *arguments])
        alone.append(seconds)
        print(f"{name} alone: {len(cases)} cases, {alone[-1]:.0f} s", flush=True)
        differing += print_differences({case: each for case, each in together.items() if case[0] == name}, cases)
    print(f"{differing} cases differ; together takes {took / sum(alone):.2f} times as long as each alone")
    return int(bool(differing))


def print_differences(first: Cases, cases: Cases) -> int:
    """Print the cases that differ, and return how many there are."""
    differing = sorted(case for case in first.keys() | cases.keys() if first.get(case) != cases.get(case))
    for case in differing:
        print(f"  {' '.join(case)}: {cases.get(case)}, first {first.get(case)}")
    return len(differing)


def run(seed: int, arguments: list[str]) -> tuple[Cases, float]:
    """Run the suite in the order of `seed`; return what the record has of each case, and the seconds that it took."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "record.jsonl")
        command = [sys.executable, "-m", "pytest", "--pyargs", "inbackward_conformance", "-q"]
        command += [f"--randomly-seed={seed}", "--conformance-report", str(report), *arguments]
        printed = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ).stdout
        if not report.exists():
            sys.exit(f"pytest has run nothing:\n{printed}")
        lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    if lines[-1]["kind"] != "footer":
        raise RuntimeError(f"the run with seed {seed} did not reach its end; its last line is {lines[-1]}")
    took = time.monotonic() - began
    cases = {
        (line["implementation"], line["requirement"], line["case"]): {
            key: value for key, value in line.items() if key not in TIMES
        }
        for line in lines
        if line["kind"] == "case"
    }
    return cases, took


if __name__ == "__main__":
    sys.exit(main())
