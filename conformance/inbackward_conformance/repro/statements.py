"""Writes events as statements, with inlined batches, and loops for repeated events."""

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
"""Repetitions of up to so many events are written as a loop."""


def statements(events: Sequence[Event], script: Script) -> str:
    """Return the statements of `events`."""
    written: list[str] = []
    for event in events:
        script.lines = []
        write(event, script)
        if script.lines:
            written.append("\n".join(_inline_batches(script.lines)))
    return "\n".join(_with_loops(written))


def _inline_batches(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines of an event, and replace `batch` by its expression if it is used once."""
    batch = ""
    for number, line in enumerate(lines):
        if _draws(line):
            uses = list(takewhile(lambda later: not _draws(later), lines[number + 1 :]))
            if len(_BATCH.findall("\n".join(uses))) == 1 and "lambda" not in "".join(uses):
                batch = line.partition("batch = ")[2]
                continue
        if batch and _BATCH.search(line):
            line, batch = _BATCH.sub(batch, line), ""  # noqa: PLW2901
        yield line


def _draws(line: str) -> bool:
    return line.lstrip().startswith("batch = ")


def _with_loops(written: Sequence[str]) -> Iterator[str]:
    """Yield the statements, and write those that repeat in a row as a loop."""
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
    """Return how often the next `length` events repeat in a row."""
    pattern = written[at : at + length]
    if len(pattern) < length:
        return 1
    times = 1
    while list(written[at + times * length : at + (times + 1) * length]) == list(pattern):
        times += 1
    return times
