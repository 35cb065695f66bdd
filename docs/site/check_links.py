"""`python -m docs.site.check_links FOLDER` fails if a link of the built site leads nowhere within it."""

from __future__ import annotations

import argparse
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The ids of a page, and what it refers to.

    Attributes:
        ids: the ids.
        references: the values of `href` and `src`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = {"", "top"}
        self.references: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the ids and the references of a tag."""
        given = dict(attrs)
        self.ids.update(value for key in ("id", "name") if (value := given.get(key)))
        if tag != "link" or given.get("rel") == "stylesheet":
            self.references += [value for key in ("href", "src") if (value := given.get(key))]


def dead_links(site: Path) -> list[str]:
    """Return one line for each link of the site that leads to no file of it, or to no id of that file."""
    found = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)  # that has templates
    pages = {path.resolve(): Page(path) for path in found}
    return [
        f"{path.relative_to(site.resolve())}: {reference}"
        for path, page in pages.items()
        for reference in dict.fromkeys(page.references)
        if not _leads_somewhere(path, reference, pages)
    ]


def _leads_somewhere(path: Path, reference: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(reference)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if target not in pages:
        return target.is_file()
    return unquote(parts.fragment) in pages[target].ids


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m docs.site.check_links", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    if dead := dead_links(folder):
        sys.exit("\n".join(["links that lead nowhere:", *dead]))
    print(f"{len([*folder.rglob('*.html')])} pages, no dead link")
