"""Rewrites what the site needs otherwise than the repository: links, pictures, names of requirements."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)(?P<path>[^)\s#]+)(?P<fragment>#[^)\s]*)?(?=\))")
PICTURE = re.compile(
    r'<picture>\s*<source [^>]*srcset="(?P<dark>[^"]+)">\s*'
    r'<img src="(?P<light>[^"]+)"\s+alt="(?P<alt>[^"]*)">\s*</picture>'
)
THEMED = """\
```{{raw}} html
<div class="scrolls" tabindex="0" role="group" aria-label="Plot">
```

```{{image}} {light}
:alt: {alt}
:class: only-light
```

```{{image}} {dark}
:alt: {alt}
:class: only-dark
```

```{{raw}} html
</div>
```"""
NAME = r"[a-z_]+/[a-z0-9_]+"
NAMED = re.compile(rf"(?<!\[)`(?P<code>{NAME})`(?!\])|(?<=\| )(?P<cell>{NAME})(?= \|)")
"""A requirement: in backticks, but not as the text of a link, or alone in a cell of a table."""


class NoSuchFile(ValueError):
    """Raised for a link to a file that is not in the repository; the message names both."""


def anchor_of(requirement: str) -> str:
    """Return the anchor of a requirement, `#chapter-name`, without its `#`."""
    return requirement.replace("/", "-").replace("_", "-")


def prose(text: str, rewrite: Callable[[str], str]) -> str:
    """Rewrite all of a text in Markdown but its fenced blocks."""
    return "".join(part if is_code else rewrite(part) for is_code, part in _parts(text))


def _parts(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the parts of a text, and whether each is a fenced block."""
    fence, part = "", ""
    for line in text.splitlines(keepends=True):
        opening = re.match(r" *(`{3,}|~{3,}|:{3,})", line)
        if not fence and opening:
            yield False, part
            fence, part = opening[1], line
        elif fence and line.strip() == fence:
            yield True, part + line
            fence, part = "", ""
        else:
            part += line
    yield bool(fence), part


def link_requirements(text: str, known: Mapping[str, object]) -> str:
    """Make each name of a requirement a link to it."""

    def replace(found: re.Match[str]) -> str:
        name = found["code"] or found["cell"]
        return f"[`{name}`](#{anchor_of(name)})" if name in known else found[0]

    return prose(text, lambda part: NAMED.sub(replace, part))


def link_pages(text: str, file: str, pages: Mapping[str, str], exists: Callable[[str], bool]) -> tuple[str, set[str]]:
    """Make the links of `file` links from page to page. Return also the files that are linked to and have no page.

    Args:
        text: the text.
        file: its path in the repository.
        pages: the pages of files, by their paths.
        exists: whether the repository has a file.

    Raises:
        NoSuchFile: if it links to something that is not there.
    """
    sources = set()

    def replace(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), found["path"]))
        fragment = found["fragment"] or ""
        if path in pages:
            return f"/{pages[path]}.md{fragment}"
        if not exists(path):
            raise NoSuchFile(f"{file} links to {path}, which is no file of the repository")
        if path.endswith((".svg", ".png")):
            return found[0]
        sources.add(path)
        return f"/{source_page(path)}.md"

    return prose(text, lambda part: LINK.sub(replace, part)), sources


def show_pictures(text: str) -> str:
    """Show pictures by the theme of the site, which need not be that of the system."""
    return PICTURE.sub(
        lambda found: THEMED.format_map({**found.groupdict(), "alt": " ".join(found["alt"].split())}), text
    )


def source_page(path: str) -> str:
    """Return the page that shows a file of the repository."""
    return f"source/{path.lstrip('.').replace('/.', '/')}"
