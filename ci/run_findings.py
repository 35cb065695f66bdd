"""Runs the script of every finding of some implementations, by a Python that has their library and not the suite.

    python ci/run_findings.py PYTHON NAME...

Each script has to end with the difference that its finding shows. The exit status is 1 if one ends otherwise, if a
finding has no script, or if scripts are longer than they should be.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from inbackward_conformance import accelerator
from inbackward_conformance.findings.choose import is_as_shown
from inbackward_conformance.findings.shown import Shown, ShownFindings, lines_of_code, read_shown
from inbackward_conformance.report.expectations_file import read_expectations
from inbackward_conformance.report.expected import SHIPPED

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "findings"
OWN = "inbackward "
"""What the version of an implementation begins with that this repository holds."""

AT_MOST = 90
"""So many lines of code may a script have."""

MEDIAN_BELOW = 50
"""The median of all scripts is below this."""


def main(python: str, names: list[str]) -> int:
    """Run the scripts, and return the exit status."""
    shown = [each for each in read_shown(FOLDER) if each.implementation in names]
    wrong = [*without_script(shown, names), *too_long()]
    unusable = {device: accelerator.why_unusable(device) for device in {of.device for of in shown}}
    for of in shown:
        if why := unusable[of.device]:
            print(f"not run: {len(of.findings)} scripts of {of.implementation}, which need {of.device}: {why}")
    scripts = [(of, each) for of in shown if not unusable[of.device] for each in of.findings]
    with ThreadPoolExecutor(2) as pool:
        ends = pool.map(lambda script: run(script[0], script[1], python), scripts)
        for number, ((of, each), unlike) in enumerate(zip(scripts, ends, strict=True), 1):
            name = of.script(FOLDER, each).relative_to(FOLDER)
            print(f"{number} of {len(scripts)}: {name}: {unlike or 'shows its difference'}", flush=True)
            wrong += [f"{name} {unlike}"] * bool(unlike)
    for line in wrong:
        print(f"wrong: {line}")
    return 1 if wrong else 0


def run(of: ShownFindings, finding: Shown, python: str) -> str:
    """Run one script, and return how it ends, if otherwise than it should; else ""."""
    imports = [str(ROOT / "impl")] if of.version.startswith(OWN) else []
    return is_as_shown(finding, of.device, of.script(FOLDER, finding), python, imports)


def without_script(shown: list[ShownFindings], names: list[str]) -> list[str]:
    """Return a message for each finding of an expected failure that neither has a script nor holds elsewhere alone."""
    known = {of.implementation: {*of.elsewhere, *(each.id for each in of.findings)} for of in shown}
    files = [read_expectations(path) for path in [SHIPPED / f"{name}.toml" for name in names] if path.exists()]
    return [
        f"{file.implementation}: {finding.id} has no script; run `nox -s matrix -- --accept`"
        for file in files
        for finding in file.findings
        if finding.id not in known.get(file.implementation, set())
    ] + [message for file in files for message in file.unexplained]


def too_long() -> list[str]:
    """Return messages on the lengths of all scripts."""
    lengths = {path: lines_of_code(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*/*.py"))}
    middle, longest = median(lengths.values()), max(lengths.values())
    print(f"{len(lengths)} findings; lines of code of a script: {middle:g} in the median, at most {longest}")
    return [
        *[f"half of the scripts have {middle:g} lines or more"] * (middle >= MEDIAN_BELOW),
        *(f"{path.relative_to(FOLDER)} has {lines} lines" for path, lines in lengths.items() if lines > AT_MOST),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
