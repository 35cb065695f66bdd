"""Which file of the repository is which page, and which pages stand below which."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = {
    "README.md": "index",
    "impl/README.md": "library",
    "conformance/README.md": "authors",
    "conformance/SPEC.md": "requirements/index",
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
    "ci/README.md": "ci",
}
"""Files outside of `docs/`, and their pages."""

GENERATED = ("README.md", "conformance/SPEC.md")
"""Those whose pages have another text."""

SECTIONS = {
    "index": ["get-started", "library", "authors", "requirements/index", "matrix", "api/index", "contributing"],
    "get-started": ["why", "how"],
    "library": ["bench", "scale"],
    "authors": ["tutorial", "failures"],
    "matrix": ["findings", "torch"],
    "api/index": ["api/inbackward", "api/conformance", "api/command-line"],
    "contributing": ["ci", "changelog"],
}
"""The pages below a page, in order. `findings` stands for those in `docs/findings`."""

TITLES = {
    "library": "Train",
    "authors": "Test yours",
    "requirements/index": "Requirements",
    "matrix": "Results",
    "api/index": "API",
    "contributing": "Contribute",
    "torch": "Versions of torch",
}
"""Titles in the navigation, where a page has a longer one."""


def pages_of(root: Path) -> dict[str, str]:
    """Return the page of each file of the repository that has one."""
    own = sorted((root / "docs").rglob("*.md"))
    return {
        str(path.relative_to(root)): str(path.relative_to(root / "docs").with_suffix("")) for path in own
    } | ELSEWHERE


def toctree(page: str, pages: set[str]) -> str:
    """Return the table of contents below a page, which the reader sees in the navigation alone; empty if none."""
    entries = [entry for name in SECTIONS.get(page, []) for entry in _expand(name, pages)]
    if not entries:
        return ""
    lines = [f"{TITLES[entry]} </{entry}>" if entry in TITLES else f"/{entry}" for entry in entries]
    return "\n".join(["", "```{toctree}", ":hidden:", "", *lines, "```", ""])


def _expand(name: str, pages: set[str]) -> list[str]:
    if name != "findings":
        return [name]
    found = [page for page in pages if page.startswith("findings/")]
    return sorted(found, key=lambda page: (page != "findings/index", page))
