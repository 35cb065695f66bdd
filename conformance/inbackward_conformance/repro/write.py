"""The way from a failure to its script."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from inbackward_conformance.repro.body_script import body_script
from inbackward_conformance.repro.plan_script import plan_script
from inbackward_conformance.repro.spelling import Spelling

if TYPE_CHECKING:
    from pathlib import Path

    from inbackward_conformance.repro.failure import Failure


def source_of_failure(failure: Failure, implementation: str = "") -> str:
    """Return the text of the script, for the implementation that failed, or for another one.

    Raises:
        Unspellable: something of the case has no source.
    """
    spelling = Spelling(implementation or failure.implementation)
    return plan_script(failure, spelling) if failure.plan else body_script(failure, spelling)


def write_script(failure: Failure, folder: Path) -> Path:
    """Write the script into a folder, and return its path."""
    parts = (failure.implementation, *failure.requirement.id.split("/"), failure.case)
    name = "-".join(re.sub(r"[^\w.=]+", "_", part) for part in parts if part)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(source_of_failure(failure), encoding="utf-8")
    return path
