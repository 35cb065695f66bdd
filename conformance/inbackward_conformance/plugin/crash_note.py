"""A file that says what a worker is running, which the controller of xdist reads if the worker dies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from inbackward_conformance.plan import Plan


class CrashNote:
    """The crash note of one worker, which each case overwrites.

    Args:
        file: the path; None to write no note.
        case: the id of the test.
        requirement: the id of the requirement.
        arguments: the arguments of the case as source code, written unless it runs a plan.
    """

    def __init__(self, file: Path | None, case: str, requirement: str, arguments: dict[str, str]) -> None:
        self._file = file
        self._case = {"case": case, "requirement": requirement}
        self._arguments = arguments
        self._write(None)

    def about_to_run(self, plan: Plan) -> None:
        """Write the plan that runs next."""
        self._write(plan)

    def died(self, detail: str) -> None:
        """Say what the process dies of, if it can."""
        self._write(self._plan, detail)

    def _write(self, plan: Plan | None, detail: str = "") -> None:
        self._plan = plan
        if self._file:
            note = {**self._case, "plan": repr(plan) if plan else "", "arguments": {} if plan else self._arguments}
            self._file.write_text(json.dumps({**note, "detail": detail}), encoding="utf-8")


def read_crash_note(folder: Path, case: str) -> dict[str, Any]:
    """Return the `requirement`, `plan`, `arguments` and `detail` of a case whose process died; empty without a note."""
    for file in folder.iterdir():
        try:
            note: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # the worker died while writing it
            continue
        if note.pop("case") == case:
            return note
    return {}
