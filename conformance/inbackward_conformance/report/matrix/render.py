"""What a table of records looks like: a page, Markdown, or a badge."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from inbackward_conformance.outcome import Outcome
from inbackward_conformance.report.read_record import BadRecord
from inbackward_conformance.specification import specification

if TYPE_CHECKING:
    from inbackward_conformance.report.matrix.table import Cell, Column, Matrix
    from inbackward_conformance.report.record import RequirementRecord


class Format(StrEnum):
    """What can be made of a table, each with the template that makes it."""

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
    Outcome.NOT_OFFERED: "○",
    Outcome.NOT_RUN: "…",
    "conformant": "✓",
    "not conformant": "✗",
    "incomplete": "…",
}


@dataclass(frozen=True, order=True)
class Look:
    """How a cell is told from others: a symbol and a word, and a class for its colour."""

    symbol: str
    word: str
    css: str


def look(cell: Cell) -> Look:
    """Return how `cell` looks; a refusal that does not pass has another symbol and word than one that does."""
    outcome = cell.requirement.outcome
    if outcome in {Outcome.NOT_OFFERED, Outcome.NOT_RUN}:
        return Look(SYMBOLS[outcome], outcome, "open")
    if cell.kept:
        return Look(SYMBOLS[outcome], outcome, "kept" if outcome is Outcome.CONFORMS else "refused")
    if outcome is Outcome.REFUSES:
        return Look(SYMBOLS[Outcome.FAILS], "must not refuse", "broken")
    return Look(SYMBOLS[outcome], outcome, "broken")


def looks(column: Column) -> list[tuple[Look, int]]:
    """Count the looks of a column's cells: what is broken first, and the worst first."""
    order = list(Outcome)
    seen = sorted((order.index(cell.requirement.outcome), look(cell)) for cell in column.cells.values())
    return sorted(Counter(found for _, found in seen).items(), key=lambda item: item[0].css != "broken")


def render(matrix: Matrix, form: Format, *, may_refuse_only: bool = False) -> str:
    """Return the table in that format; `may_refuse_only` leaves out the requirements of which a refusal never passes.

    Raises:
        BadRecord: a badge of several columns is asked for.
    """
    if form is Format.BADGE and len(matrix.columns) != 1:
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
    chapters = {
        chapter: chosen
        for chapter, rows in matrix.chapters.items()
        if (chosen := [row for row in rows if not may_refuse_only or _may_refuse(row)])
    }
    return environment.get_template(TEMPLATES[form]).render(
        matrix=matrix,
        chapters=chapters,
        details=_details(matrix),
        look=look,
        looks=looks,
        meanings=MEANINGS,
        symbols=SYMBOLS,
        with_verdict=not may_refuse_only,
    )


def _code(text: str) -> Markup:
    """Return the text of a docstring with what stands in backticks set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (all of it is escaped)


def _may_refuse(row: RequirementRecord) -> bool:
    known = specification().get(row.requirement)
    return bool(known and known.may_refuse)


def _details(matrix: Matrix) -> list[dict[str, Any]]:
    """Return what the page shows of a cell when asked, by column and requirement."""
    return [{name: _detail(column, cell) for name, cell in column.cells.items()} for column in matrix.columns]


def _detail(column: Column, cell: Cell) -> dict[str, Any]:
    appearance, found = look(cell), cell.requirement
    return {
        "implementation": column.label,
        "requirement": found.requirement,
        "level": found.level,
        "symbol": appearance.symbol,
        "word": appearance.word,
        "css": appearance.css,
        "expected": found.expected,
        "outcome": found.outcome,
        "cases": len(cell.cases),
        "told": [
            {"case": case.case, "outcome": case.outcome, "detail": case.detail, "script": case.script}
            for case in cell.telling
        ],
        "run": f"{cell.run.path.name}, {cell.run.date:%Y-%m-%d %H:%M} UTC",
        "command": (
            f"python -m inbackward_conformance repro {cell.run.path.name} {found.requirement} "
            f"--implementation {column.implementation}"
        ),
    }
