"""Assembles the source of the site in a folder."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

from docs.site.links import link_pages, link_requirements, show_pictures, source_page
from docs.site.pages import GENERATED, pages_of, toctree
from docs.site.requirements import printed, requirement_pages
from docs.site.results import findings_text, links_to_records, page_of_everything, read_records, standings, verdicts

from inbackward_conformance.specification import specification

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLACE = re.compile(r"^<!-- (?P<what>[a-z]+)(?:: (?P<argument>.*))? -->$", re.MULTILINE)
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".sh": "bash"}
EXTRA = "_extra"
"""What is copied to the site as it is."""


def assemble(root: Path, target: Path, records: Path) -> dict[str, str]:
    """Write all pages and what they need into `target`, which is emptied first. Return the texts of the pages.

    Args:
        root: the repository.
        target: the folder to write to.
        records: the folder of records.

    Raises:
        NoSuchFile: if a page links to what is not in the repository.
    """
    shutil.rmtree(target, ignore_errors=True)
    (target / EXTRA).mkdir(parents=True)
    docs = root / "docs"
    for path in (docs / "conf.py", *docs.glob("*.svg")):
        shutil.copy(path, target)
    shutil.copytree(docs / "_static", target / "_static")

    texts = dict(requirement_pages(root / "tests" / "mutants" / "traces.json"))
    pages = pages_of(root) | {f"docs/{page}.md": page for page in texts}
    recorded = sorted(records.glob("*.jsonl.xz"))
    for path in recorded:
        (target / EXTRA / "records").mkdir(exist_ok=True)
        shutil.copy(path, target / EXTRA / "records")
    matrix = read_records(recorded)
    if matrix:
        (target / EXTRA / "everything.html").write_text(page_of_everything(matrix), encoding="utf-8")
    findings = [page.partition("/")[2] for page in pages.values() if page.startswith("findings/")]
    places: dict[str, Callable[[str], str]] = {
        "verdicts": lambda _: verdicts(matrix),
        "standings": lambda _: standings(matrix, findings),
        "records": lambda _: links_to_records(recorded),
        "everything": lambda _: EVERYTHING if matrix else "",
        "findings": lambda _: findings_text(pages.values()),
        "help": help_of,
        "diagram": lambda name: diagram(docs / "_diagrams" / name),
    }

    sources: set[str] = set()
    for file, page in pages.items():
        if file not in GENERATED and page not in texts:
            text = (root / file).read_text(encoding="utf-8")
            text, linked = link_pages(text, file, pages, lambda path: (root / path).is_file())
            sources |= linked
            texts[page] = PLACE.sub(lambda found: places[found["what"]](found["argument"] or ""), show_pictures(text))
    texts = {page: link_requirements(text, specification()) for page, text in texts.items()}
    texts |= {source_page(file): _shown(root / file, file) for file in sorted(sources)}
    for page, text in texts.items():
        path = target / f"{page}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + toctree(page, set(texts)), encoding="utf-8")
    return texts


EVERYTHING = """\
```{raw} html
<p><a class="btn btn-primary" href="everything.html">Open all results</a></p>
```"""


def diagram(path: Path) -> str:
    """Return a drawing as a part of the page, so that it follows the theme; a narrow window scrolls it."""
    drawing = path.read_text(encoding="utf-8")
    return (
        f'```{{raw}} html\n<div class="scrolls" tabindex="0" role="group" aria-label="Diagram">\n{drawing}</div>\n```'
    )


def help_of(command: str) -> str:
    """Return the help of a command of the suite."""
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "96"
    try:
        text = printed(*command.split(), "--help")
    finally:
        if width is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = width
    return f"```text\n{text}```"


def _shown(path: Path, file: str) -> str:
    """Return a page that shows a file of the repository."""
    code = path.read_text(encoding="utf-8")
    language = LANGUAGES.get(path.suffix, "text")
    fence = "`" * max(4, max(map(len, re.findall("`+", code)), default=0) + 1)
    return f"---\norphan: true\nnosearch: true\n---\n\n# {file}\n\n{fence}{language}\n{code}{fence}\n"
