"""Writes events as statements: a batch stands where it is used, and events that repeat are a loop."""

from __future__ import annotations

import re
import textwrap
from itertools import takewhile
from typing import TYPE_CHECKING

from inbackward_conformance.repro.write import write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inbackward_conformance.plan.events import Event
    from inbackward_conformance.repro.script import Script

_BATCH = re.compile(r"\bbatch\b")

LONGEST_PATTERN = 4
"""A pattern of up to so many events that comes several times is written as a loop."""


def statements(events: Sequence[Event], script: Script) -> str:
    """Return the statements of `events`, repetitions as loops."""
    written: list[str] = []
    for event in events:
        script.lines = []
        write(event, script)
        if script.lines:
            written.append("\n".join(_drawn_where_used(script.lines)))
    return "\n".join(_folded(written))


def _drawn_where_used(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines of an event, a batch that is used once without a name."""
    waiting = ""
    for number, line in enumerate(lines):
        if _draws(line):
            uses = list(takewhile(lambda other: not _draws(other), lines[number + 1 :]))
            if len(_BATCH.findall("\n".join(uses))) == 1 and "lambda" not in "".join(uses):
                waiting = line.partition("batch = ")[2]
                continue
        if waiting and _BATCH.search(line):
            line, waiting = _BATCH.sub(waiting, line), ""  # noqa: PLW2901
        yield line


def _draws(line: str) -> bool:
    return line.lstrip().startswith("batch = ")


def _folded(written: Sequence[str]) -> Iterator[str]:
    """Yield the statements, a pattern that comes several times in a row as a loop."""
    at = 0
    while at < len(written):
        repeats = {length: _times(written, at, length) for length in range(1, LONGEST_PATTERN + 1)}
        length = max(repeats, key=lambda length: ((repeats[length] > 1) * length * repeats[length], -length))
        if repeats[length] > 1:
            yield f"for _ in range({repeats[length]}):"
            yield textwrap.indent("\n".join(written[at : at + length]), "    ")
        else:
            yield written[at]
        at += length * repeats[length]


def _times(written: Sequence[str], at: int, length: int) -> int:
    """Return how often the next `length` events come in a row."""
    pattern = written[at : at + length]
    if len(pattern) < length:
        return 1
    times = 1
    while list(written[at + times * length : at + (times + 1) * length]) == list(pattern):
        times += 1
    return times
