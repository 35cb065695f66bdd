"""Keeps what `nox -s matrix` found of some implementations, for the documentation: records, and findings with scripts.

    python ci/keep_results.py FOLDER NAME...

Compresses their records in FOLDER into `docs/records`, and makes `docs/findings` of them. A record in which not all
cases were run is left out, so that what was kept before stays. The exit status is 1 if no script shows a finding.
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

from inbackward_conformance.__main__ import main as run_command
from inbackward_conformance.report.read_record import BadRecord, read_record
from record_each import PARTS

DOCS = Path(__file__).parents[1] / "docs"


def main(folder: Path, names: list[str]) -> int:
    """Keep the results of all of them, and return the exit status."""
    records = [folder / f"{name}{part}.jsonl" for name in names for part in PARTS]
    try:
        runs = {path: read_record(path) for path in records}
    except BadRecord as error:
        print(error)
        return 1
    kept = DOCS / "records"
    kept.mkdir(exist_ok=True)
    whole = [path for path, run in runs.items() if run.whole]
    if partial := [path.name for path in records if path not in whole]:
        print(f"nothing is kept of {', '.join(partial)}: not all cases were run")
    for path in whole:
        (kept / f"{path.name}.xz").write_bytes(lzma.compress(path.read_bytes(), preset=9))
    if not whole:
        return 0
    return run_command(["findings", *map(str, whole), "-o", str(DOCS / "findings")])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
