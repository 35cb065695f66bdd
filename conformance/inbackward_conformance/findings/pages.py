"""The pages of findings, in Markdown: one for each implementation, and an index."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from inbackward_conformance.findings.shown import lines_of_code
from inbackward_conformance.specification import specification

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from inbackward_conformance.findings.shown import Shown, ShownFindings
    from inbackward_conformance.report.expectations_file import ExpectationsFile, KnownFinding

INDEX = "index.md"

ABOUT = """\
# Findings

What the suite found in implementations of optimizer in backward: one entry for each distinct cause, however many
requirements fail because of it. Each has a script that needs torch and that library alone, and ends with the
difference.
"""

OF_ONE = """\
# Findings in {implementation}

Seen with {versions}, on `{device}`. Run a script where these are installed: it needs nothing of the suite, and ends
with the error that its entry shows. The text for the tracker can be filed as it stands.
"""

REPORT = """\
**{title}**

{what}

{who}

With {versions}, this script ends with `{ends}`:

```python
{script}
```

Seen by the conformance suite of inbackward, requirement `{requirement}`: {text}
"""


def write_pages(folder: Path, every: Sequence[ShownFindings], files: Iterable[ExpectationsFile]) -> None:
    """Write the page of each implementation whose expected failures are given, and the index of all."""
    by_name = {shown.implementation: shown for shown in every}
    for file in files:
        if shown := by_name.get(file.implementation):
            (folder / f"{shown.name}.md").write_text(page(shown, file, folder), encoding="utf-8")
    (folder / INDEX).write_text(index(every, folder), encoding="utf-8")


def index(every: Sequence[ShownFindings], folder: Path) -> str:
    """Return the index: for each implementation the titles of its findings."""
    number = sum(len(shown.findings) for shown in every)
    parts = [ABOUT.rstrip(), f"{_counted(number, 'finding')} in {_counted(len(every), 'implementation')}:"]
    for shown in every:
        rows = [
            f"| [{each.title}]({shown.name}.md#{_anchor(each.title)}) | {_size(shown, each, folder)} |"
            for each in shown.findings
        ]
        parts.append("\n".join([f"## {shown.implementation}", "", f"Seen with {_versions(shown)}.", ""]))
        parts.append("\n".join(["| finding | script |", "|---|---|", *rows]))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def page(shown: ShownFindings, file: ExpectationsFile, folder: Path) -> str:
    """Return the page of one implementation."""
    about = OF_ONE.format(implementation=shown.implementation, versions=_versions(shown), device=shown.device)
    of_id = {each.id: each for each in shown.findings}
    entries = [
        _entry(finding, of_id[finding.id], shown, file, folder) for finding in file.findings if finding.id in of_id
    ]
    others = [f"- {finding.title}: {_where(finding, file)}" for finding in file.findings if finding.id not in of_id]
    if others:
        entries.append("\n".join(["## Not shown here", "", *others]))
    return "\n\n".join([about.rstrip(), *entries]) + "\n"


def _entry(finding: KnownFinding, shown: Shown, of: ShownFindings, file: ExpectationsFile, folder: Path) -> str:
    requirement = shown.case.requirement
    others = dict.fromkeys(entry.requirement for entry in file.explained_by(finding))
    others.pop(requirement, None)
    script = of.script(folder, shown).read_text(encoding="utf-8").rstrip()
    facts = [
        f"Requirement: `{requirement}` ({shown.case.level}), outcome `{shown.case.outcome}`.",
        f"Script: [{of.name}/{shown.id}.py]({of.name}/{shown.id}.py), {_size(of, shown, folder)}.",
        f"In the source: <{finding.link}>." if "://" in finding.link else f"See `{finding.link}`.",
    ]
    if finding.since:
        facts.insert(0, f"Since {finding.since}.")
    if others:
        facts.append(f"It also breaks {', '.join(f'`{name}`' for name in others)}.")
    report = REPORT.format(
        title=finding.title,
        what=_one_line(finding.what),
        who=_one_line(finding.who),
        versions=_versions(of),
        ends=shown.ends,
        script=script,
        requirement=requirement,
        text=_one_line(specification()[requirement].text.partition("\n\n")[0]),
    )
    return "\n".join(
        [
            f"## {finding.title}",
            "",
            _filled(finding.what),
            "",
            _filled(finding.who),
            "",
            *(line for fact in facts for line in _item(fact)),
            "",
            "It ends with",
            "",
            textwrap.indent(shown.ends, "    "),
            "",
            "<details><summary>Text for the tracker, with the script</summary>",
            "",
            f"````markdown\n{report.rstrip()}\n````",
            "",
            "</details>",
        ]
    )


def _versions(of: ShownFindings) -> str:
    torch = f"torch {of.torch.partition('+')[0]}"
    return torch if of.version.startswith("torch ") else f"{of.version or of.implementation} and {torch}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _anchor(title: str) -> str:
    """Return the anchor that a heading has on GitHub, and in MyST."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def _where(finding: KnownFinding, file: ExpectationsFile) -> str:
    conditions = dict.fromkeys(
        " ".join(filter(None, [f"torch {entry.torch}" if entry.torch else "", entry.device]))
        for entry in file.explained_by(finding)
    )
    return f"it holds for {', '.join(filter(None, conditions)) or 'what was not run here'}."


def _size(of: ShownFindings, shown: Shown, folder: Path) -> str:
    lines = lines_of_code(of.script(folder, shown).read_text(encoding="utf-8"))
    ranks = " on ranks" if "Ranks(" in shown.case.plan else ""
    return f"{lines} lines of code{ranks}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _filled(text: str) -> str:
    return textwrap.fill(_one_line(text), 120, break_long_words=False, break_on_hyphens=False)


def _item(text: str) -> list[str]:
    return textwrap.wrap(
        text, 120, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
