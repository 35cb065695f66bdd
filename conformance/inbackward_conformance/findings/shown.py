"""What shows a finding: a failed case, and the script made of it. Kept beside the pages, so that they can be made anew.

A folder of findings has for each implementation a page `NAME.md`, and a folder `NAME` with a script for each finding
and the file `shown.json`.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from inbackward_conformance.report.record import CaseRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHOWN = "shown.json"

LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT, tokenize.ENDMARKER}


class BadFolder(ValueError):
    """Raised for a folder that holds no findings; the message is one line with the remedy."""


@dataclass(frozen=True)
class Shown:
    """A failed case that shows a finding.

    Attributes:
        id: the id of the finding.
        title: its title.
        case: the case that failed.
        ends: the error that ends the script.
    """

    id: str
    title: str
    case: CaseRecord
    ends: str


@dataclass(frozen=True)
class ShownFindings:
    """What shows the findings of one implementation.

    Attributes:
        implementation: its name.
        version: its distribution, with the version.
        torch: the version of torch.
        device: the device.
        findings: those that are shown.
        elsewhere: ids of findings that hold only for other devices, or other versions of torch.
    """

    implementation: str
    version: str
    torch: str
    device: str
    findings: tuple[Shown, ...]
    elsewhere: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its page and its folder of scripts."""
        return re.sub(r"[^\w.-]+", "_", self.implementation)

    def script(self, folder: Path, shown: Shown) -> Path:
        """Return the path of a script in a folder of findings."""
        return folder / self.name / f"{shown.id}.py"

    def write(self, folder: Path) -> None:
        """Write it into a folder of findings."""
        path = folder / self.name / SHOWN
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_shown(folder: Path) -> list[ShownFindings]:
    """Return what a folder of findings holds, in order of names.

    Raises:
        BadFolder: a file is not what `ShownFindings.write` wrote.
    """
    return [_read(path) for path in sorted(folder.glob(f"*/{SHOWN}"))]


def _read(path: Path) -> ShownFindings:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        findings = [Shown(**{**each, "case": CaseRecord.load(each["case"])}) for each in values.pop("findings")]
        return ShownFindings(**{**values, "elsewhere": tuple(values["elsewhere"])}, findings=tuple(findings))
    except (ValueError, KeyError, TypeError) as error:
        raise BadFolder(f"{path}: cannot be read ({type(error).__name__}: {error}); make the findings anew") from error


def lines_of_code(source: str) -> int:
    """Return the number of lines that have code: neither blank, nor comment, nor docstring."""
    with_code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            with_code.update(range(token.start[0], token.end[0] + 1))
    return len(with_code.difference(_lines_of_docstrings(source)))


def _lines_of_docstrings(source: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(ast.Constant(str()), lineno=first, end_lineno=last):
                yield from range(first, (last or first) + 1)
