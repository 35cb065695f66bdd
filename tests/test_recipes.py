"""The code of the READMEs, as it stands, and the recipes of the library's page."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

import inbackward

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "impl" / "README.md"
RECIPES = ROOT / "impl" / "recipes"


def run_blocks(page: Path) -> dict[str, Any]:
    """Run the Python blocks of a page as one script, in which line numbers are those of the page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    names: dict[str, Any] = {}
    code, in_block = [], False
    for line in lines:
        if line.startswith("```"):
            in_block = line == "```python"
            code.append("")
        else:
            code.append(line if in_block else "")
    exec(compile("\n".join(code), page, "exec", dont_inherit=True), names)  # noqa: S102
    return names


@pytest.mark.filterwarnings("error")
def test_the_code_of_the_librarys_page_runs() -> None:
    names = run_blocks(PAGE)
    assert names["total_norm"] > 0
    assert names["image"].grad is not None
    steps = {int(state["step"]) for state in names["optimizer"].state_dict()["state"].values()}
    assert steps == {17}  # ten at first, and one for each block that steps; for inputs' gradients none
    assert all(param.grad is None for param in names["model"].parameters())


@pytest.mark.filterwarnings("error")
def test_the_code_of_the_projects_page_runs() -> None:
    run_blocks(ROOT / "README.md")


def test_the_plain_loop_equals_the_standard_loop(capsys: pytest.CaptureFixture[str]) -> None:
    """The other recipes want libraries: `nox -s recipes` runs them all."""
    runpy.run_path(str(RECIPES / "plain_loop.py"), run_name="__main__")
    assert capsys.readouterr().out == "plain loop: 6 steps inside backward, equal to the standard loop bit by bit\n"


def test_every_recipe_is_in_the_page() -> None:
    linked = re.findall(r"\]\(recipes/(.+?)\)", PAGE.read_text(encoding="utf-8"))
    assert sorted(linked) == sorted(path.name for path in RECIPES.glob("*.py"))


def test_every_function_is_in_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    handle = [f"handle.{name}" for name in vars(inbackward.Handle) if not name.startswith("_")]
    public = {*inbackward.__all__} - {"Handle"}
    assert [name for name in [*public, *handle] if f"`{name}" not in page] == []
