"""The verdicts, and the page of all results, from the records in `docs/records`."""

from __future__ import annotations

import lzma
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from inbackward_conformance.report.matrix.render import SYMBOLS, Format, render
from inbackward_conformance.report.matrix.table import Matrix, merge
from inbackward_conformance.report.read_record import read_record

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from inbackward_conformance.report.matrix.table import Column

STANDINGS = ("kept", "broken", "in part", "not offered", "not run")
WHAT = {
    "reference-handed": "this repository's, handed an optimizer",
    "reference": "this repository's, with an optimizer for each parameter",
    "torch": "`_apply_optimizer_in_backward` of `torch.distributed.optim`",
    "tutorial": "the recipe of PyTorch's tutorial",
}
"""What an implementation is, if its name and its distribution do not say it."""

NO_RECORDS = "There are no records in `docs/records` yet, so this page shows no results. `nox -s matrix` makes records."


def read_records(paths: Sequence[Path]) -> Matrix | None:
    """Return the matrix of compressed records; None if there are none."""
    with TemporaryDirectory(prefix="inbackward-") as folder:
        runs = []
        for path in paths:
            record = Path(folder, path.stem)
            record.write_bytes(lzma.decompress(path.read_bytes()))
            runs.append(read_record(record))
    return merge(runs) if runs else None


def links_to_records(paths: Sequence[Path]) -> str:
    """Return links to the compressed records, which are a part of the site."""
    links = ", ".join(f'<a href="records/{path.name}">{path.name}</a>' for path in paths)
    return f"```{{raw}} html\n<p>Records: {links}. Decompress them by <code>xz -d</code>.</p>\n```" if paths else ""


def page_of_everything(matrix: Matrix) -> str:
    """Return the page that `python -m inbackward_conformance matrix` makes, with a link that leads back."""
    icon = '<link rel="icon" href="_static/favicon.svg">\n'
    back = (
        '\n<nav aria-label="Site" style="padding: 0.5rem 1rem"><a href="matrix.html">inbackward documentation</a></nav>'
    )
    page = render(replace(matrix, columns=tuple(_by_verdict(matrix))), Format.HTML)
    return page.replace("<title>", f"{icon}<title>", 1).replace("<body>", f"<body>{back}", 1)


def verdicts(matrix: Matrix | None) -> str:
    """Return a short table: the verdict on each implementation."""
    if matrix is None:
        return NO_RECORDS
    rows = ["| implementation | verdict | MUST kept | SHOULD kept |", "|---|---|---|---|"]
    for column in _by_verdict(matrix):
        kept = [_kept(column.levels.get(level, {})) for level in ("MUST", "SHOULD")]
        rows.append(f"| {_name(column)} | {_verdict(column)} | {kept[0]} | {kept[1]} |")
    return "\n".join([*rows, "", _when(matrix)])


def standings(matrix: Matrix | None, findings: Collection[str]) -> str:
    """Return a table: how many MUSTs each implementation keeps, breaks, and so on.

    Args:
        matrix: the matrix.
        findings: the implementations that have a page of findings.
    """
    if matrix is None:
        return NO_RECORDS
    more = ["SHOULD kept", *(["findings"] if findings else [])]
    head = ["implementation", "verdict", *STANDINGS, *more]
    rows = [head, ["---"] * len(head)]
    for column in _by_verdict(matrix):
        musts = column.levels.get("MUST", {})
        row = [_name(column), _verdict(column), *(str(musts.get(name, 0)) for name in STANDINGS)]
        row.append(_kept(column.levels.get("SHOULD", {})))
        if findings:
            found = column.implementation
            row.append(f"[findings](findings/{found}.md)" if found in findings else "")
        rows.append(row)
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", _when(matrix)])


def findings_text(pages: Collection[str]) -> str:
    """Return a sentence that leads to the findings, if there are pages of them."""
    if "findings/index" in pages:
        return "[Findings](/findings/index.md) say what is behind the failures of each implementation."
    names = sorted(page for page in pages if page.startswith("findings/"))
    if names:
        return "\n".join(f"- [{page.partition('/')[2]}](/{page}.md)" for page in names)
    return "Findings describe what is behind the failures of an implementation. There are none in `docs/findings` yet."


def _by_verdict(matrix: Matrix) -> list[Column]:
    """Return the columns, those that keep the most MUSTs first."""
    return sorted(matrix.columns, key=lambda column: -column.levels.get("MUST", {}).get("kept", 0))


def _name(column: Column) -> str:
    what = WHAT.get(column.implementation) or column.version
    return f"**{column.label}**" + (f"<br>{what}" if what else "")


def _verdict(column: Column) -> str:
    return f"{SYMBOLS[column.verdict]} {column.verdict}"


def _kept(counts: dict[str, int]) -> str:
    return f"{counts.get('kept', 0)} of {sum(counts.values())}"


def _when(matrix: Matrix) -> str:
    torch = ", ".join(dict.fromkeys(f"torch {column.torch} on {column.device}" for column in matrix.columns))
    return f"With {torch}, recorded on {matrix.runs[-1].date.date()}."
