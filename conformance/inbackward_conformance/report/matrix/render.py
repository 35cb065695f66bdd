"""Renders a matrix as a page, Markdown, or a badge."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from inbackward_conformance.compatibility import StrEnum
from inbackward_conformance.outcome import Outcome
from inbackward_conformance.report.read_record import BadRecord
from inbackward_conformance.report.record import RequirementRecord, Standing
from inbackward_conformance.specification import specification

if TYPE_CHECKING:
    from inbackward_conformance.report.matrix.table import Cell, Column, Matrix


class Format(StrEnum):
    """The output formats."""

    MARKDOWN = "markdown"
    HTML = "html"
    BADGE = "badge"


TEMPLATES = {Format.MARKDOWN: "matrix.md", Format.HTML: "matrix.html", Format.BADGE: "badge.svg"}

MEANINGS = {
    Outcome.CONFORMS: "equal to the standard loop",
    Outcome.REFUSES: "a clear error before anything has changed, where that is allowed; else it must not refuse",
    Outcome.DIVERGES: "silently different from the standard loop",
    Outcome.FAILS: "another promise broken: a leak, a leftover gradient, a torn update, an accidental error",
    Outcome.HANGS: "ran past its time limit",
    Outcome.CRASHES: "its process died",
    Outcome.ERROR: "the suite or the adapter's own set-up broke",
    Standing.IN_PART: "some cases passed, the others were not offered or not run",
    Outcome.NOT_OFFERED: "a call that the implementation does not have",
    Outcome.NOT_RUN: "left out of the run, or not possible on its machine",
}

SYMBOLS = {
    Outcome.CONFORMS: "✓",
    Outcome.REFUSES: "⊘",
    Outcome.DIVERGES: "≠",
    Outcome.FAILS: "✗",
    Outcome.HANGS: "∞",
    Outcome.CRASHES: "†",
    Outcome.ERROR: "!",
    Standing.IN_PART: "◐",
    Outcome.NOT_OFFERED: "○",
    Outcome.NOT_RUN: "…",
    "conformant": "✓",
    "not conformant": "✗",
    "incomplete": "…",
}


@dataclass(frozen=True, order=True)
class CellStyle:
    """The appearance of a cell: a symbol, a word, and a CSS class for its colour."""

    symbol: str
    word: str
    css: str


def style_of(cell: Cell) -> CellStyle:
    """Return the style of `cell`; a refusal that does not pass looks different from one that does."""
    outcome, standing = cell.requirement.outcome, cell.requirement.standing
    if standing in {Standing.IN_PART, Standing.NOT_OFFERED, Standing.NOT_RUN}:
        return CellStyle(SYMBOLS[standing], standing, "open")
    if standing is Standing.KEPT:
        return CellStyle(SYMBOLS[outcome], outcome, "kept" if outcome is Outcome.CONFORMS else "refused")
    if outcome is Outcome.REFUSES:
        return CellStyle(SYMBOLS[Outcome.FAILS], "must not refuse", "broken")
    return CellStyle(SYMBOLS[outcome], outcome, "broken")


def word_of(cell: Cell) -> str:
    """Return the outcome of `cell`, or `in part`."""
    standing = cell.requirement.standing
    return standing if standing is Standing.IN_PART else cell.requirement.outcome


def count_styles(column: Column) -> list[tuple[CellStyle, int]]:
    """Count the cells of a column by style, failures first, the worst first."""
    order = list(Outcome)
    styles = sorted((order.index(cell.requirement.outcome), style_of(cell)) for cell in column.cells.values())
    return sorted(Counter(style for _, style in styles).items(), key=lambda item: item[0].css != "broken")


def render(matrix: Matrix, output_format: Format, *, may_refuse_only: bool = False) -> str:
    """Return the matrix in a format; `may_refuse_only` keeps the requirements that accept a refusal and could be run.

    Raises:
        BadRecord: if a badge is asked for and there is not exactly one column.
    """
    if output_format is Format.BADGE and len(matrix.columns) != 1:
        labels = ", ".join(column.label for column in matrix.columns)
        raise BadRecord(f"a badge is of one column, here are {labels or 'none'}; choose by --implementation or records")
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=select_autoescape(("html", "svg")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    environment.filters["markdown"] = _markdown
    chapters = {
        chapter: selected
        for chapter, rows in matrix.chapters.items()
        if (selected := [row for row in rows if not may_refuse_only or _may_refuse(row)])
    }
    return environment.get_template(TEMPLATES[output_format]).render(
        matrix=matrix,
        chapters=chapters,
        details=_details(matrix),
        style_of=style_of,
        word_of=word_of,
        count_styles=count_styles,
        meanings=MEANINGS,
        symbols=SYMBOLS,
        with_verdict=not may_refuse_only,
    )


def _code(text: str) -> Markup:
    """Return a docstring as HTML, with `<code>` for backticks."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (all of it is escaped)


def _markdown(text: str) -> str:
    """Return text as it stands for itself in a cell of a Markdown table."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*|<>&\[\]]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", line)


def _may_refuse(row: RequirementRecord) -> bool:
    requirement = specification().get(row.requirement)
    return bool(requirement and requirement.may_refuse and row.applies)


def _details(matrix: Matrix) -> list[dict[str, Any]]:
    """Return the content of the dialog of each cell, by column and requirement."""
    return [{name: _detail(column, cell) for name, cell in column.cells.items()} for column in matrix.columns]


def _detail(column: Column, cell: Cell) -> dict[str, Any]:
    style, record = style_of(cell), cell.requirement
    return {
        "implementation": column.label,
        "requirement": record.requirement,
        "level": record.level,
        "symbol": style.symbol,
        "word": style.word,
        "css": style.css,
        "expected": record.expected,
        "outcome": word_of(cell),
        "cases": len(cell.cases),
        "observations": [
            {"case": case.case, "outcome": case.outcome, "detail": case.detail, "script": case.script}
            for case in cell.observations
        ],
        "run": f"{cell.run.path.name}, {cell.run.date:%Y-%m-%d %H:%M} UTC",
        "command": (
            f"python -m inbackward_conformance repro {quote(cell.run.path.name)} {record.requirement} "
            f"--implementation {quote(column.implementation)}"
        ),
    }
