"""What a case is about to run, in a file while it runs: if its process dies, the controller of xdist reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from inbackward_conformance.plan import Plan


class CrashNote:
    """The file of one worker, which each case writes anew.

    Args:
        file: None: nobody would read it.
        case: the id of the test.
        requirement: whose case it is.
        arguments: its values as source; those of a plan that it runs are not needed.
    """

    def __init__(self, file: Path | None, case: str, requirement: str, arguments: dict[str, str]) -> None:
        self._file = file
        self._case = {"case": case, "requirement": requirement}
        self._arguments = arguments
        self._write(None)

    def about_to_run(self, plan: Plan) -> None:
        """Keep the plan, until the next one."""
        self._write(plan)

    def _write(self, plan: Plan | None) -> None:
        if self._file:
            found = {**self._case, "plan": repr(plan) if plan else "", "arguments": {} if plan else self._arguments}
            self._file.write_text(json.dumps(found), encoding="utf-8")


def read_crash_note(folder: Path, case: str) -> dict[str, Any]:
    """Return `requirement`, `plan` and `arguments` of a case whose process died; empty if there is no note."""
    for file in folder.iterdir():
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # it died while it wrote
            continue
        if found.pop("case") == case:
            return found
    return {}
