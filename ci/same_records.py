"""Runs the suite many times in random order and says whether all records are the same, times and order aside.

python ci/same_records.py --runs 20 -- --implementation reference --implementation torch -n 2
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
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="how many (default 20); run N has the seed N")
    parser.add_argument("arguments", nargs="*", help="for pytest: --implementation and the like")
    given = parser.parse_args()
    first: Cases = {}
    for seed in range(given.runs):
        began = time.monotonic()
        cases = run(seed, given.arguments)
        first = first or cases
        differing = sorted(case for case in first.keys() | cases.keys() if first.get(case) != cases.get(case))
        print(f"run {seed}: {len(cases)} cases, {len(differing)} differ, {time.monotonic() - began:.0f} s", flush=True)
        for case in differing:
            print(f"  {' '.join(case)}: {cases.get(case)}, in run 0 {first.get(case)}")
        if differing:
            return 1
    return 0


def run(seed: int, arguments: list[str]) -> Cases:
    """Run the suite in the order of `seed` and return what the record has of each case."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "record.jsonl")
        command = [sys.executable, "-m", "pytest", "--pyargs", "inbackward_conformance", "-q"]
        command += [f"--randomly-seed={seed}", "--conformance-report", str(report), *arguments]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    if lines[-1]["kind"] != "footer":
        raise RuntimeError(f"the run with seed {seed} did not reach its end; its last line is {lines[-1]}")
    return {
        (line["implementation"], line["requirement"], line["case"]): {
            key: value for key, value in line.items() if key not in TIMES
        }
        for line in lines
        if line["kind"] == "case"
    }


if __name__ == "__main__":
    sys.exit(main())
