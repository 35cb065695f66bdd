"""`python -m bench`: what it prints and writes, and never a time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def assert_has_plots(page: str, folder: Path, name: str) -> None:
    """Both are written whole, and the page shows them."""
    for theme in ("light", "dark"):
        assert f"{name}-{theme}.svg" in page
        drawn = (folder / f"{name}-{theme}.svg").read_text(encoding="utf-8")
        assert drawn.rstrip().endswith("</svg>")
        assert len(drawn) < 150_000


def test_one_model_in_little_time(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    setting = ["--models", "small", "--optimizers", "SGD", "--variants", "loop", "handed-0", "handed-4M"]
    setting += ["--rounds", "2", "--laps", "2", "--seconds", "0", "--threads", "1"]
    written = ["--json", str(figures), "--docs", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "bench", *setting, *written],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    expected = ["loop", "handed-0", "handed-4M", "loop-fused"]  # the last is the baseline
    found = json.loads(figures.read_text(encoding="utf-8"))["found"]
    assert [(each["model"], each["optimizer"], each["variant"]) for each in found] == [
        ("small", "SGD", variant) for variant in expected
    ]
    assert all([len(times) for times in each["seconds"]] == [2, 2] for each in found)
    assert all(each["ratio"] > 0 for each in found)

    gradients = {each["variant"]: each["peak_gradients"] for each in found}
    every, largest = 100 * 4 * (16 * 16 + 16), 4 * 16 * 16
    assert gradients == {"loop": every, "loop-fused": every, "handed-0": largest, "handed-4M": every}

    table, _, targets = run.stdout.partition("\ntargets\n")
    assert len(table.splitlines()) == 1 + len(expected)
    assert re.search(r"^  (met|MISSED) .* SGD, 200 small +time of handed-4M over loop$", targets, re.MULTILINE)
    assert re.search(r"^  met +1\.000 .* bucket 0, over bucket plus largest gradient$", targets, re.MULTILINE)
    assert "small, SGD" in run.stderr

    page = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert "| `step_in_backward`, bucket 4 MiB |" in page
    assert_has_plots(page, tmp_path, "bench")
