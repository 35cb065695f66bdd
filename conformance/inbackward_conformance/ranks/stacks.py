"""Python stacks, as faulthandler writes them, on one line."""

from __future__ import annotations

import re
from pathlib import Path

ENOUGH = 8
ENOUGH_CHARACTERS = 400

_FRAME = re.compile(r'^  File "(?P<path>.*)", line (?P<line>\d+) in (?P<name>.*)$')
_MACHINERY = {"multiprocessing", "ranks", "threading.py"}


def innermost_frames(text: str) -> str:
    """Return the innermost frames of the thread that does the work, innermost first."""
    threads = [_frames(part) for part in re.split(r"^(?:Current thread|Thread) .*$", text, flags=re.MULTILINE)]
    working = max(threads, key=len, default=[])
    return " < ".join(working[:ENOUGH]) or "an unknown place: it wrote no stack"


def last_output(text: str) -> str:
    """Return what a process printed last, with the stack of a fatal error on one line."""
    printed, fatal, stack = text.partition("Fatal Python error: ")
    lines = [printed.strip()[-ENOUGH_CHARACTERS:]]
    if fatal:
        lines.append(f"{fatal}{stack.partition(chr(10))[0]} at {innermost_frames(stack)}")
    return " ".join(filter(None, lines)) or "(none)"


def _frames(text: str) -> list[str]:
    found = [match for line in text.splitlines() if (match := _FRAME.match(line))]
    return [
        f"{match['name']} ({Path(match['path']).name}:{match['line']})"
        for match in found
        if not _MACHINERY & set(Path(match["path"]).parts[-2:])
    ]
