"""Runs every mutant over one case of every requirement, and says what was caught: `nox -s mutants`.

All that mutants fail is kept in `mutants/caught.txt`, so that a change in what the suite sees shows in review; the
score by chapter and the mutants of each requirement stand in `conformance/SPEC.md`.

    python tests/score.py             prints the score; an error if a mutant escapes, or a file is not up to date
    python tests/score.py --accept    the same, and writes the files
    python tests/score.py --extra architectures    runs the mutants of requirements that need an extra, and no other
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from inbackward_conformance.__main__ import score, specification_text
from inbackward_conformance.extras import EXTRAS, missing, why_not_run
from inbackward_conformance.plan.events.checkpoint import FOLDER
from inbackward_conformance.report.read_record import read_record
from inbackward_conformance.specification import DISTRIBUTED, specification
from mutants import MUTANTS, Mutant, chapters
from mutants.selection import OF_EXTRAS, selection

if TYPE_CHECKING:
    from inbackward_conformance.report.record import CaseRecord

HERE = Path(__file__).parent
ROOT = HERE.parent
CAUGHT = HERE / "mutants" / "caught.txt"
TRACES = HERE / "mutants" / "traces.json"
SPEC = ROOT / "conformance" / "SPEC.md"

EXTRA_OF = {mutant: specification()[mutant.requirement].extra for mutant in MUTANTS}
RUN_HERE = [mutant for mutant in MUTANTS if specification()[mutant.requirement].is_on("cpu") and not EXTRA_OF[mutant]]
WORKERS = 3
"""One more than cores: the ranks of the first run wait for each other half of the time."""
PARTS = 4
"""The run on ranks takes about as long as one of these; each part loads torch and collects the suite anew."""
NUMBERS = re.compile(r"(largest difference|loss|step) -?[\d.e+-]+|nan\b|0x[0-9a-f]+|(?<=\.py:)\d+")
NAME = re.compile(r"(?<=parameter )'[^']+'(?= differs between rank)")
LONGEST_DETAIL = 160
DEFECTS = frozenset({"diverges", "fails", "refuses"})
"""What a mutant is caught by; an error would be one of the suite, or of the mutant's own text."""


@dataclass(frozen=True)
class Failure:
    """What came of a case that did not pass."""

    outcome: str
    detail: str

    @classmethod
    def of(cls, case: CaseRecord) -> Failure:
        """Leave out what is not the same everywhere, and the mutant's own name, which its base has not."""
        detail = NUMBERS.sub(lambda match: f"{match[1] or ''} …".strip(), case.detail)
        detail = FOLDER.sub("…", detail)
        detail = NAME.sub("…", detail)  # which one is the first whose sum is rounded otherwise
        detail = detail.replace(case.implementation.replace(":", "."), "its class")
        detail = detail.replace(case.implementation.partition(":")[2], "its class")
        return cls(case.outcome, textwrap.shorten(detail, LONGEST_DETAIL, placeholder=" …"))


class Seen:
    """All that the suite saw of mutants, and of what they are made from."""

    def __init__(self, reports: list[Path]) -> None:
        self._failures: dict[str, dict[tuple[str, str], Failure | None]] = {}
        for case in (case for report in reports for case in read_record(report).cases):
            failure = None if case.passed else Failure.of(case)
            self._failures.setdefault(case.implementation, {})[case.requirement, case.case] = failure

    def departures(self, name: str, made_from: str) -> dict[tuple[str, str], Failure | None]:
        """Return what a mutant comes to where its base comes to something else, by requirement and case."""
        base = self._failures.get(made_from, {})
        own = self._failures.get(name, {})  # none, if it was not run here
        return {key: failure for key, failure in own.items() if failure != base.get(key)}

    def is_caught(self, mutant: Mutant) -> bool:
        """Whether its requirement fails, and not as it does for the base."""
        departures = self.departures(mutant.name, mutant.made_from)
        own = [failure for (requirement, _), failure in departures.items() if requirement == mutant.requirement]
        return any(failure and failure.outcome in DEFECTS for failure in own)


def main() -> int:
    """Run, print, compare, and write if that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--accept", action="store_true", help="write what was found into the files")
    parser.add_argument("--extra", choices=EXTRAS, help="run the mutants of requirements that need it; write nothing")
    arguments = parser.parse_args()
    if arguments.extra:
        return score_extra(arguments.extra)
    accept = arguments.accept
    started = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        seen, cases = run_all(pool)
    print(score(traces(seen, cases)))
    print(f"{sum(map(seen.is_caught, RUN_HERE))} of {len(RUN_HERE)} caught, in {time.monotonic() - started:.0f} s")
    of_extras = Counter(filter(None, EXTRA_OF.values()))
    print(f"{len(MUTANTS) - len(RUN_HERE) - of_extras.total()} are for requirements that take an accelerator")
    for extra, number in of_extras.items():
        print(f"{number} are for requirements that need the extra {extra}: nox -s {extra}")
    escaped = [mutant for mutant in RUN_HERE if not seen.is_caught(mutant)]
    wrong = [f"escaped: {mutant.name}, which is for {mutant.requirement}" for mutant in escaped]
    wrong += [line for mutant in RUN_HERE if mutant.only_drawn for line in named_that_catch(mutant, seen)]
    print("\n".join(wrong), end="\n" * bool(wrong))
    stale = [path for path, text in files(seen, cases).items() if not bring_up_to_date(path, text, accept=accept)]
    return int(bool(wrong or stale))


def score_extra(extra: str) -> int:
    """Run the mutants of requirements that need an extra, and say which are not caught."""
    if missing(extra):
        print(f"nothing was run: {why_not_run(extra)}")
        return 1
    mutants = [mutant for mutant in MUTANTS if EXTRA_OF[mutant] == extra]
    names = dict.fromkeys(name for mutant in mutants for name in (mutant.name, mutant.made_from))
    with TemporaryDirectory(prefix="mutants-") as folder:
        report = Path(folder, "record.jsonl")
        run(report, list(filter(None, names)), [], extra)
        seen = Seen([report])
    escaped = [mutant for mutant in mutants if not seen.is_caught(mutant)]
    print(f"{len(mutants) - len(escaped)} of {len(mutants)} caught")
    for mutant in escaped:
        print(f"escaped: {mutant.name}, which is for {mutant.requirement}")
    return int(bool(escaped))


def run_all(pool: ThreadPoolExecutor) -> tuple[Seen, Counter[str]]:
    """Run mutants and what they are made from, and count all cases; say so, since it takes minutes."""
    chapters_of = chapters()
    on_ranks = [name for name in chapters_of if chapters_of[name] <= DISTRIBUTED]
    here = [name for name in chapters_of if name not in on_ranks and not chapters_of[name] <= OF_EXTRAS]
    jobs = [(on_ranks, ["--distributed"]), *((here[number::PARTS], []) for number in range(PARTS))]
    started = time.monotonic()
    print(f"{len(on_ranks) + len(here)} implementations, in {len(jobs)} runs", flush=True)
    with TemporaryDirectory(prefix="mutants-") as folder:
        reports = [Path(folder, f"{number}.jsonl") for number in range(len(jobs))]
        running = [pool.submit(run, report, *job) for report, job in zip(reports, jobs, strict=True)]
        counting = [pool.submit(count_cases, *options) for options in ((), ("--distributed",))]
        for number, job in enumerate(as_completed(running), 1):
            job.result()
            print(f"run {number} of {len(jobs)} has ended after {time.monotonic() - started:.0f} s", flush=True)
        return Seen(reports), sum((counted.result() for counted in counting), Counter())


def run(report: Path, names: list[str], options: list[str], extra: str = "") -> None:
    """Run the suite on mutants, the requirements that need an extra or those that need none."""
    chosen = report.with_suffix(".selection.json")
    chosen.write_text(json.dumps(selection(names, extra)), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "--pyargs", "inbackward_conformance", "-q", "--tb=no"]
    command += [f"-pno:{plugin}" for plugin in ("logging", "randomly", "xdist")]
    command += ["--case-seconds", "300"]  # a first compilation by inductor takes its time
    command += ["--conformance-report", str(report), "--conformance-select", str(chosen), *options]
    command += [argument for name in names for argument in ("--implementation", name)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=report.parent, env=env, capture_output=True, text=True, check=False)
    if done.returncode != pytest.ExitCode.TESTS_FAILED:  # mutants fail
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr}")


def named_that_catch(mutant: Mutant, seen: Seen) -> list[str]:
    """Return a line for each requirement that sees a mutant though only drawn plans should."""
    departures = seen.departures(mutant.name, mutant.made_from)
    named = sorted({requirement for requirement, _ in departures if not requirement.startswith("properties")})
    return [f"not by drawn plans alone: {mutant.name} is seen by {requirement}" for requirement in named]


def files(seen: Seen, cases: Counter[str]) -> dict[Path, str]:
    """Return what the files should hold."""
    traced = traces(seen, cases)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(trace)}" for name, trace in traced.items())
    return {CAUGHT: golden(seen), TRACES: f"{{\n{lines}\n}}\n", SPEC: specification_text(traced)}


def golden(seen: Seen) -> str:
    """Return all that every mutant fails and what it is made from does not, or not so."""
    lines = ["One case of each requirement, for each mutant: what it fails, and its base does not, or not so."]
    lines += ["* is what it has to fail; 'keeps' is where its base fails. Written by nox -s mutants -- --accept."]
    for name, made_from in dict.fromkeys((mutant.name, mutant.made_from) for mutant in MUTANTS):
        named = {mutant.requirement for mutant in MUTANTS if mutant.name == name}
        by_rounding = {each for mutant in MUTANTS if mutant.name == name for each in mutant.by_rounding}
        lines += ["", " from ".join(each.removeprefix("mutants.") for each in (name, made_from) if each)]
        for (requirement, case), failure in sorted(seen.departures(name, made_from).items()):
            where = f"{requirement}{f'[{case}]' if case else ''}"
            if failure and requirement in named:
                detail = "by rounding" if requirement in by_rounding else failure.detail
                lines.append(f"* {where} {failure.outcome}: {detail}")
            elif requirement not in by_rounding:
                lines.append(f"  {where}" if failure else f"  keeps {where}")
    return "\n".join(lines) + "\n"


def traces(seen: Seen, cases: Counter[str]) -> dict[str, dict[str, Any]]:
    """Return of each requirement its cases, the mutants that are for it, how many of them ran, and were caught."""
    own = {name: [mutant for mutant in MUTANTS if mutant.requirement == name] for name in specification()}
    return {
        name: {
            "cases": cases[name],
            "mutants": [mutant.name.partition(":")[2] for mutant in mutants],
            "run": sum(mutant in RUN_HERE for mutant in mutants),
            "caught": sum(mutant in RUN_HERE and seen.is_caught(mutant) for mutant in mutants),
        }
        for name, mutants in own.items()
    }


def count_cases(*options: str) -> Counter[str]:
    """Return how many cases pytest collects for one implementation, by requirement."""
    command = [sys.executable, "-m", "pytest", "--pyargs", "inbackward_conformance", "-q", "--collect-only"]
    command += ["-p", "no:xdist", "--implementation", "torch", *options]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return Counter(f"{chapter}/{name}" for chapter, name in re.findall(r"test_(\w+)\.py::test_(\w+)", printed))


def bring_up_to_date(path: Path, text: str, *, accept: bool) -> bool:
    """Write a file, or show how it differs; return whether it is up to date."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before == text:
        return True
    if accept:
        path.write_text(text, encoding="utf-8")
        return True
    name = str(path.relative_to(ROOT))
    sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), text.splitlines(True), name, f"{name}, now"))
    print(f"{name} is not up to date: look at the difference, then nox -s mutants -- --accept")
    return False


if __name__ == "__main__":
    sys.exit(main())
