"""Writes the script of a failure, as a file or as text, and runs it once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from inbackward_conformance.repro.body_script import body_script
from inbackward_conformance.repro.call_templates import CallTemplates
from inbackward_conformance.repro.failure import CannotWrite
from inbackward_conformance.repro.from_record import failure_of
from inbackward_conformance.repro.plan_script import plan_script
from inbackward_conformance.repro.run_script import run_script, unlike_the_record

if TYPE_CHECKING:
    from pathlib import Path

    from inbackward_conformance.report.record import CaseRecord
    from inbackward_conformance.repro.failure import Failure


def source_of_failure(failure: Failure, implementation: str = "") -> str:
    """Return the text of the script, for the implementation that failed or another one.

    Raises:
        CannotWrite: a part of the case has no source.
    """
    templates = CallTemplates(implementation or failure.implementation)
    return plan_script(failure, templates) if failure.plan else body_script(failure, templates)


def script_of(case: CaseRecord, device: str, folder: Path, seconds: float) -> tuple[str, str]:
    """Write the script of a failed case into a folder, and run it once, for up to `seconds`.

    Returns:
        Its path, or the reason why there is none; and how it ends, unless as the record says.
    """
    try:
        failure = failure_of(case, device)
        path = write_script(failure, folder)
        return str(path), unlike_the_record(run_script(path, seconds), failure)
    except CannotWrite as error:
        return f"none: {error}", ""
    except Exception as error:  # noqa: BLE001 (a defect of a script must not end the run)
        return f"none, by a defect of the suite: {type(error).__name__}: {error}", ""


def write_script(failure: Failure, folder: Path) -> Path:
    """Write the script into a folder, and return its path."""
    parts = (failure.implementation, *failure.requirement.id.split("/"), failure.case)
    name = "-".join(re.sub(r"[^\w.=]+", "_", part) for part in parts if part)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(source_of_failure(failure), encoding="utf-8")
    return path
