"""Summarises in under 100 lines what `ci/on_device.sh` left in a folder, and writes the tables beside it.

python ci/summarize_device.py RECORDS DEVICE
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

Line = dict[str, Any]

MAX_LINES = 99
WIDTH = 240
PARTS = ("local", "distributed")


def main(folder: Path, device: str) -> None:
    """Print the summary."""
    lines = [*_machine(device), *(path.read_text().strip() for path in sorted(folder.glob("*.status"))), ""]
    failures: list[str] = []
    for part in PARTS:
        if (record := folder / f"{part}.jsonl").exists():
            cases, verdicts = _read(record)
            lines += _counts(part, cases, verdicts)
            failures += _failures(part, cases)
            _write_table(record)
    if (bench := folder / "bench.log").exists():
        told = bench.read_text(encoding="utf-8", errors="replace")
        lines += ["bench: " + line for line in told.partition("\ntargets\n")[2].splitlines() or told.splitlines()[-3:]]
    lines += failures
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"... {len(lines) - MAX_LINES + 1} more lines: see the records"]
    print(*(line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..." for line in lines), sep="\n")


def _machine(device: str) -> Iterator[str]:
    kind = device.partition(":")[0]
    name = platform.processor() or platform.machine()
    if kind != "cpu":
        try:
            name = torch.get_device_module(kind).get_device_name(device if ":" in device else None)
        except (AssertionError, AttributeError, RuntimeError) as error:
            name = f"cannot be asked for its name ({str(error).partition(chr(10))[0]})"
    yield f"{device}: {name}; torch {torch.__version__}, Python {platform.python_version()}, {platform.platform()}"


def _read(path: Path) -> tuple[list[Line], Line]:
    """Return the cases of a record, and the implementations of its footer; none if the run did not reach its end."""
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]  # a run that was killed may have been writing a line
    lines: list[Line] = [json.loads(line) for line in whole.splitlines()]
    footer: Line = next((line["implementations"] for line in lines if line["kind"] == "footer"), {})
    return [line for line in lines if line["kind"] == "case"], footer


def _counts(part: str, cases: list[Line], verdicts: Line) -> Iterator[str]:
    if not verdicts:
        yield f"{part}: the run did not reach its end"
    for implementation in dict.fromkeys(case["implementation"] for case in cases):
        counts = Counter(case["outcome"] for case in cases if case["implementation"] == implementation)
        told = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
        about = verdicts.get(implementation, {})
        must = {standing: number for standing, number in about.get("levels", {}).get("MUST", {}).items() if number}
        yield f"{part}, {implementation}: {about.get('verdict', 'no verdict')}; MUST {must}; cases: {told}"


def _failures(part: str, cases: list[Line]) -> Iterator[str]:
    failed = defaultdict(list)
    for case in cases:
        if not (case["passed"] or case["expected"] or case["outcome"] in {"not run", "not offered"}):
            failed[case["implementation"], case["requirement"], case["outcome"]].append(case)
    for (implementation, requirement, outcome), found in failed.items():
        first = f"[{found[0]['case']}]" if found[0]["case"] else ""
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        detail = " ".join(found[0]["detail"].split())
        yield f"{part}, {implementation}: {requirement}{first}{more} {outcome}: {detail}"


def _write_table(record: Path) -> None:
    """Write the table of a record, if its run reached its end."""
    command = [
        sys.executable,
        "-m",
        "inbackward_conformance",
        "matrix",
        str(record),
        "-o",
        str(record.with_suffix(".md")),
    ]
    subprocess.run(command, check=False, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
