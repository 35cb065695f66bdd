"""The files, the commands and the shown output of a page of the documentation."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from pytest_forks import PytestForks

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(
    r"^```(?:\{code-block\} \w+\n:caption: (?P<caption>[^\n]+)\n\n(?P<code>.*?)|console\n(?P<console>.*?))^```$",
    re.DOTALL | re.MULTILINE,
)
LEFT_OUT = "[…]\n"


@dataclass(frozen=True)
class File:
    """A file that the reader writes, or a part of one that a command has written: `from PATH`."""

    name: str
    code: str


@dataclass(frozen=True)
class Command:
    """A command, and the output that the page shows."""

    line: str
    shown: str


def blocks_of(page: str) -> Iterator[File | Command]:
    """The files and commands of a page, in order."""
    for block in BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")):
        if block["caption"]:
            yield File(block["caption"], block["code"])
            continue
        for command in block["console"].split("$ ")[1:]:
            line, _, shown = command.partition("\n")
            yield Command(line, shown)


def follow(page: str, pytester: pytest.Pytester, forks: PytestForks, *, leave_out: str) -> list[pytest.RunResult]:
    """Do what a page says, but for commands that match a pattern; each has to print what is shown."""
    results = []
    for block in blocks_of(page):
        if isinstance(block, File):
            _write_or_find(block, pytester.path)
        elif not re.search(leave_out, block.line):
            result = _run(block.line, pytester, forks)
            printed = "".join(f"{line}\n" for line in result.outlines + result.errlines)
            assert re.search(_pattern(block.shown), _without_times(printed), re.MULTILINE), printed
            results.append(result)
    return results


def _write_or_find(file: File, folder: Path) -> None:
    written = file.name.removeprefix("from ")
    if written != file.name:
        assert file.code in (folder / written).read_text(encoding="utf-8")
        return
    (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
    (folder / file.name).write_text(file.code, encoding="utf-8")


def _run(line: str, pytester: pytest.Pytester, forks: PytestForks) -> pytest.RunResult:
    program, *arguments = shlex.split(line.removeprefix("PYTHONPATH=. "))
    if program == "pytest":
        return forks.run(pytester, "-p", "no:randomly", *arguments)
    assert program == "python"
    return pytester.run(sys.executable, *arguments)


def _pattern(shown: str) -> str:
    """Return a regular expression for the shown output."""
    return "^" + r"(?:.*\n)*?".join(map(re.escape, _without_times(shown).split(LEFT_OUT)))


def _without_times(text: str) -> str:
    """Leave out how long a run of pytest took, and with it the width of its last line."""
    return re.sub(r"^=+ (.*) in [\d.]+s.* =+$", r"\1", text, flags=re.MULTILINE)
