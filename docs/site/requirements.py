"""The pages of the specification: one for each chapter, with an anchor for each requirement."""

from __future__ import annotations

import re
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import TYPE_CHECKING

from docs.site.links import anchor_of

from inbackward_conformance.__main__ import main
from inbackward_conformance.specification import DISTRIBUTED, Requirement, specification

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHAPTER = re.compile(r"^## (?=[a-z_]+$)", re.MULTILINE)
REQUIREMENT = re.compile(r"^### (?P<id>\S+) \((?P<level>[A-Z]+)(?:, )?(?P<more>.*)\)$", re.MULTILINE)
PROOF = "## Proof that the suite can fail"


def printed(*arguments: str) -> str:
    """Return what a command of the suite prints."""
    output = StringIO()
    with redirect_stdout(output), suppress(SystemExit):  # which `--help` raises
        main(arguments)
    return output.getvalue()


def requirement_pages(traces: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each page, from what `spec --traces FILE` prints."""
    text, _, proof = printed("spec", "--traces", str(traces)).partition(f"\n{PROOF}\n")
    introduction, *chapters = CHAPTER.split(text)
    named = {chapter.partition("\n")[0]: chapter for chapter in chapters}
    yield "requirements/index", _overview(introduction, list(named), proof)
    for name, chapter in named.items():
        yield f"requirements/{name}", f"# {REQUIREMENT.sub(_heading, chapter)}"


def _overview(introduction: str, chapters: list[str], proof: str) -> str:
    rows = []
    for name in chapters:
        levels = [str(requirement.level) for requirement in specification().values() if requirement.chapter == name]
        ranks = "on ranks" if name in DISTRIBUTED else ""
        rows.append(
            f"| [{name}](/requirements/{name}.md) | {levels.count('MUST')} | {levels.count('SHOULD')} | {ranks} |"
        )
    table = ["| chapter | MUST | SHOULD | |", "|---|---|---|---|", *rows]
    contents = ["```{toctree}", ":hidden:", "", *(f"/requirements/{name}" for name in chapters), "```"]
    return "\n".join([introduction, "## Chapters", "", *table, "", *contents, "", PROOF, "", proof])


def _heading(found: re.Match[str]) -> str:
    requirement = specification()[found["id"]]
    color = "primary" if requirement.level == "MUST" else "secondary"
    badges = [f"{{bdg-{color}}}`{found['level']}`"]
    badges += [f"{{bdg-secondary-line}}`{condition}`" for condition in _conditions(requirement, found["more"])]
    return f"({anchor_of(requirement.id)})=\n## {requirement.id}\n\n{' '.join(badges)}"


def _conditions(requirement: Requirement, more: str) -> list[str]:
    needs = [f"optional call: {requirement.needs}"] if requirement.needs else []
    return [*filter(None, more.split(", ")), *needs]
