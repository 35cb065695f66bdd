"""Runs the suite on each of some implementations, and leaves two records of each: here, and on ranks.

    python ci/record_each.py FOLDER NAME... [-- options of pytest]

Goes on after an interruption: a run whose record is there is not repeated, unless the sources of the implementation or
of the suite, a version, or an option has changed since. `--anew` in the place of a name repeats all of them.

One that cannot be imported here, or needs a device that is not here, is no reason to say nothing of it: in its record
every requirement is `not run`, with the reason. The exit status is 1 if something failed that was not expected to.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import inbackward
import inbackward_conformance
from inbackward_conformance import accelerator
from inbackward_conformance.adapters.declarations import Declarations
from inbackward_conformance.adapters.find import UnusableImplementation, find_implementation, version_of
from inbackward_conformance.outcome import Outcome
from inbackward_conformance.report.expected import SHIPPED
from inbackward_conformance.report.record import CaseRecord, RecordFile, summarize
from inbackward_conformance.specification import DISTRIBUTED, specification

PARTS = {"": [], "-distributed": ["--distributed"]}
"""What is run, by what the names of the records end with."""

ANEW = "--anew"


def main(folder: Path, names: list[str], options: list[str]) -> int:
    """Record all of them, and return the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    anew = ANEW in names
    names = [name for name in names if name != ANEW]
    failed = [name for name in names if not record(name, folder, options, anew=anew)]
    if failed:
        print(f"not as expected: {', '.join(failed)}")
    return 1 if failed else 0


def record(name: str, folder: Path, options: list[str], *, anew: bool) -> bool:
    """Run the suite on one, and return whether all that failed was expected to."""
    reports = {part: folder / f"{name}{part}.jsonl" for part in PARTS}
    try:
        device = Declarations.of(find_implementation(name)).requires_device or "cpu"
        why_not = accelerator.why_unusable(device)
    except UnusableImplementation as error:
        why_not = str(error)
    if why_not:
        print(f"{name} is not run: {why_not}")
        for part, report in reports.items():
            record_not_run(name, report, why_not, distributed=bool(part))
        return True
    options = [*options, "--device", device] if device != "cpu" else options
    statuses = [run(name, part, report, options, anew=anew) for part, report in reports.items()]
    return not any(statuses)


def run(name: str, part: str, report: Path, options: list[str], *, anew: bool) -> int:
    """Run one part of the suite on one implementation, unless its record is there; return pytest's exit status."""
    made_of = {"sources": sources_of(name), "torch": version("torch"), "version": version_of(name), "options": options}
    note = report.with_suffix(".made-of.json")  # is there only beside the record of a run that came to its end
    try:
        earlier = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        earlier = {}
    what = f"{name}, {'on ranks' if part else 'here'}"
    if not anew and report.exists() and made_of.items() <= earlier.items():
        print(f"{what}: the record is there ({report.name})")
        return int(earlier["status"])
    note.unlink(missing_ok=True)
    print(f"{what}:", flush=True)
    command = [sys.executable, "-m", "pytest", "--pyargs", "inbackward_conformance", "--implementation", name]
    command += ["--conformance-report", str(report), *PARTS[part], *options]
    status = subprocess.run(command, check=False).returncode
    if status in {0, 1}:
        note.write_text(json.dumps({**made_of, "status": status}), encoding="utf-8")
    return status


def sources_of(name: str) -> str:
    """Return a digest of the suite, the reference implementation, the adapter, and what is expected to fail."""
    target = find_implementation(name)
    adapter = inspect.getsourcefile(target if inspect.ismodule(target) or inspect.isclass(target) else type(target))
    packages = [Path(str(package.__file__)).parent for package in (inbackward, inbackward_conformance)]
    sources = [path for package in packages for path in sorted(package.rglob("*.py")) if path.parent != SHIPPED]
    digest = hashlib.sha256()
    for path in filter(Path.exists, [*sources, Path(adapter or ""), SHIPPED / f"{name}.toml"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def record_not_run(name: str, path: Path, reason: str, *, distributed: bool) -> None:
    """Write the record of an implementation of which nothing ran."""
    cases = [
        CaseRecord(name, found.id, "", found.level, Outcome.NOT_RUN, passed=True, detail=reason)
        for found in specification().values()
        if (found.chapter in DISTRIBUTED) == distributed
    ]
    with path.open("w", encoding="utf-8") as file:
        lines = RecordFile(file, {name: ""}, device="cpu", seed=0, profile="")
        for case in cases:
            lines.write_case(case)
        lines.finish({name: summarize(name, cases, [], "cpu")}, selection="nothing", whole=False)


if __name__ == "__main__":
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    sys.exit(main(Path(given[0]), given[1:end], given[end + 1 :]))
