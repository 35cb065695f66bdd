"""What an installation of the distribution brings along, and what an import costs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import inbackward

ROOT = Path(__file__).parents[1]
ADDED = "import sys, torch; before = {*sys.modules}; import inbackward; print(*({*sys.modules} - before))"


def test_without_an_extra_it_needs_torch_alone() -> None:
    assert [need for need in requires("inbackward") or [] if "extra ==" not in need] == ["torch>=2.10"]


def test_the_library_loads_nothing_that_torch_has_not_loaded() -> None:
    """So that it is imported in milliseconds."""
    done = subprocess.run([sys.executable, "-c", ADDED], text=True, capture_output=True, check=True)
    added = done.stdout.split()
    assert "inbackward" in added
    assert [name for name in added if name.partition(".")[0] != "inbackward"] == []


def test_the_version_is_said_everywhere() -> None:
    assert version("inbackward") == inbackward.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {inbackward.__version__}\n" in citation
    assert f"\n## [{inbackward.__version__}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
