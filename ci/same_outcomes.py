"""Runs the suite many times in random order and says whether every case came to the same each time.

python ci/same_outcomes.py --runs 20 -- --implementation reference --implementation torch -n 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

Outcomes = dict[tuple[str, str, str], tuple[str, bool]]


def main() -> int:
    """Return 0 if all runs agree with the first, 1 if one does not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="how many (default 20); run N has the seed N")
    parser.add_argument("arguments", nargs="*", help="for pytest: --implementation and the like")
    given = parser.parse_args()
    first: Outcomes = {}
    for seed in range(given.runs):
        began = time.monotonic()
        outcomes = run(seed, given.arguments)
        first = first or outcomes
        differing = sorted(case for case in first.keys() | outcomes.keys() if first.get(case) != outcomes.get(case))
        print(
            f"run {seed}: {len(outcomes)} cases, {len(differing)} differ, {time.monotonic() - began:.0f} s", flush=True
        )
        for case in differing:
            print(f"  {' '.join(case)}: {outcomes.get(case)}, in run 0 {first.get(case)}")
        if differing:
            return 1
    return 0


def run(seed: int, arguments: list[str]) -> Outcomes:
    """Run the suite in the order of `seed` and return what each case came to."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "record.jsonl")
        command = [sys.executable, "-m", "pytest", "--pyargs", "inbackward_conformance", "-q"]
        command += [f"--randomly-seed={seed}", "--conformance-report", str(report), *arguments]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    if lines[-1]["kind"] != "footer":
        raise RuntimeError(f"the run with seed {seed} did not reach its end; its last line is {lines[-1]}")
    return {
        (line["implementation"], line["requirement"], line["case"]): (line["outcome"], line["passed"])
        for line in lines
        if line["kind"] == "case"
    }


if __name__ == "__main__":
    sys.exit(main())
