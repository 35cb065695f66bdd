"""Runs every mutant over one case of every requirement, and says what was caught: `nox -s mutants`.

All that mutants fail is kept in `mutants/caught.txt`, so that a change in what the suite sees shows in review; the
score by chapter stands in the README, and the mutants of each requirement in `conformance/SPEC.md`.

    python tests/score.py             prints the score; an error if a mutant escapes, or a file is not up to date
    python tests/score.py --accept    the same, and writes the files
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from inbackward_conformance.__main__ import specification_text
from inbackward_conformance.read_record import read_record
from inbackward_conformance.specification import DISTRIBUTED, specification
from mutants import MUTANTS

HERE = Path(__file__).parent
ROOT = HERE.parent
CAUGHT = HERE / "mutants" / "caught.txt"
TRACES = HERE / "mutants" / "traces.json"
README = ROOT / "README.md"
SPEC = ROOT / "conformance" / "SPEC.md"

RUN_HERE = [mutant for mutant in MUTANTS if specification()[mutant.requirement].applies_to("cpu")]
WORKERS = 2
BEGIN, END = "<!-- mutants: written by nox -s mutants -->", "<!-- /mutants -->"
NUMBERS = re.compile(r"(largest difference|loss|step) -?[\d.e+-]+|nan\b|0x[0-9a-f]+")

Failures = dict[str, dict[str, tuple[str, str, str]]]
"""Case, outcome and detail by mutant and requirement."""


def main() -> int:
    """Run, print, compare, and write if that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--accept", action="store_true", help="write what was found into the files")
    accept = parser.parse_args().accept
    started = time.monotonic()
    failures = run_all()
    escaped = [mutant for mutant in RUN_HERE if mutant.requirement not in failures[mutant.name]]
    print(score(failures))
    print(f"{len(RUN_HERE) - len(escaped)} of {len(RUN_HERE)} caught, in {time.monotonic() - started:.0f} s")
    print(f"{len(MUTANTS) - len(RUN_HERE)} are for requirements that take an accelerator")
    for mutant in escaped:
        print(f"escaped: {mutant.name}, which is for {mutant.requirement}")
    stale = sum(bring_up_to_date(path, text, accept=accept) for path, text in files(failures).items())
    return int(bool(escaped or stale))


def run_all() -> Failures:
    """Return what every mutant fails."""
    names = list(dict.fromkeys(mutant.name for mutant in MUTANTS))
    on_ranks = [
        name for name in names if all(chapter_of(m.requirement) in DISTRIBUTED for m in MUTANTS if m.name == name)
    ]
    here = [name for name in names if name not in on_ranks]
    with TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(WORKERS) as pool:
        jobs: list[tuple[list[str], tuple[str, ...]]]
        jobs = [(here[number::WORKERS], ()) for number in range(WORKERS)]
        jobs += [(on_ranks, ("--distributed",))] * bool(on_ranks)
        reports = [Path(folder, f"{number}.jsonl") for number in range(len(jobs))]
        list(pool.map(_run, reports, *zip(*jobs, strict=True)))
        failures: Failures = {name: {} for name in names}
        for case in (case for report in reports for case in read_record(report).cases if not case.passed):
            detail = NUMBERS.sub(lambda found: f"{found[1] or ''} …".strip(), case.detail)
            failures[case.implementation][case.requirement] = (case.case, case.outcome, detail)
    return failures


def _run(report: Path, names: list[str], options: tuple[str, ...]) -> None:
    named = [argument for name in names for argument in ("--implementation", name)]
    command = [sys.executable, "-m", "pytest", "--pyargs", "inbackward_conformance", "-q", "--tb=native"]
    command += [
        "-p",
        "no:randomly",
        "-p",
        "no:xdist",
        "-p",
        "every_requirement",
        *options,
        "--conformance-report",
        str(report),
        *named,
    ]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=report.parent, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 1:  # mutants fail
        sys.exit(done.stdout[-3000:] + done.stderr)


def score(failures: Failures) -> str:
    """Return a table: caught of all mutants, by chapter."""
    rows = ["| chapter | mutants | caught |", "| --- | --- | --- |"]
    for chapter in dict.fromkeys(requirement.chapter for requirement in specification().values()):
        of_chapter = [mutant for mutant in RUN_HERE if chapter_of(mutant.requirement) == chapter]
        caught = sum(mutant.requirement in failures[mutant.name] for mutant in of_chapter)
        rows.append(f"| {chapter} | {len(of_chapter)} | {caught} |")
    caught = sum(mutant.requirement in failures[mutant.name] for mutant in RUN_HERE)
    return "\n".join([*rows, f"| **all** | {len(RUN_HERE)} | {caught} |"])


def files(failures: Failures) -> dict[Path, str]:
    """Return what the files should hold."""
    traced = json.dumps(traces(), indent=1) + "\n"
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    return {
        CAUGHT: golden(failures),
        TRACES: traced,
        README: f"{before}{BEGIN}\n\n{score(failures)}\n\n{END}{rest.partition(END)[2]}",
        SPEC: specification_text(json.loads(traced)),
    }


def golden(failures: Failures) -> str:
    """Return all that every mutant fails; a star is where it has to."""
    lines = [
        "All that each mutant fails, of one case a requirement; * is what it has to fail. Written by nox -s mutants."
    ]
    for name, failed in failures.items():
        named = {mutant.requirement for mutant in MUTANTS if mutant.name == name}
        lines += ["", name.removeprefix("mutants.")]
        for requirement, (case, outcome, detail) in sorted(failed.items()):
            star = "*" if requirement in named else " "
            lines.append(f"{star} {outcome} {requirement}{f'[{case}]' if case else ''}: {detail}")
    return "\n".join(lines) + "\n"


def traces() -> dict[str, dict[str, object]]:
    """Return how many cases each requirement has, and which mutants are for it."""
    cases = count_cases()
    return {
        name: {
            "cases": cases[name],
            "mutants": [mutant.name.partition(":")[2] for mutant in MUTANTS if mutant.requirement == name],
        }
        for name in specification()
    }


def count_cases() -> dict[str, int]:
    """Return how many cases pytest collects, by requirement."""
    counted = dict.fromkeys(specification(), 0)
    for options in ((), ("--distributed",)):
        command = [sys.executable, "-m", "pytest", "--pyargs", "inbackward_conformance", "-q", "--collect-only"]
        command += ["-p", "no:xdist", "--implementation", "torch", *options]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for chapter, name in re.findall(r"test_(\w+)\.py::test_(\w+)", printed):
            counted[f"{chapter}/{name}"] += 1
    return counted


def chapter_of(requirement: str) -> str:
    """Return the chapter of a requirement."""
    return requirement.partition("/")[0]


def bring_up_to_date(path: Path, text: str, *, accept: bool) -> bool:
    """Write a file, or show how it differs; return whether it is not up to date."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before == text:
        return False
    if accept:
        path.write_text(text, encoding="utf-8")
        return False
    name = str(path.relative_to(ROOT))
    sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), text.splitlines(True), name, f"{name}, now"))
    print(f"{name} is not up to date: look at the difference, then nox -s mutants -- --accept")
    return True


if __name__ == "__main__":
    sys.exit(main())
