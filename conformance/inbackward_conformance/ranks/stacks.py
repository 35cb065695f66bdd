"""One-line summaries of the Python stacks that faulthandler writes."""

from __future__ import annotations

import re
from pathlib import Path

MAX_FRAMES = 8
MAX_CHARACTERS = 400

_FRAME = re.compile(r'^  File "(?P<path>.*)", line (?P<line>\d+) in (?P<name>.*)$')
_HIDDEN_PATHS = {"multiprocessing", "ranks", "threading.py"}


def innermost_frames(text: str) -> str:
    """Return the innermost frames of the working thread, innermost first."""
    threads = [_frames(part) for part in re.split(r"^(?:Current thread|Thread) .*$", text, flags=re.MULTILINE)]
    frames = max(threads, key=len, default=[])
    return " < ".join(frames[:MAX_FRAMES]) or "an unknown place: it wrote no stack"


def last_output(text: str) -> str:
    """Return the last output of a process, with the stack of a fatal error on one line."""
    printed, fatal, stack = text.partition("Fatal Python error: ")
    lines = [printed.strip()[-MAX_CHARACTERS:]]
    if fatal:
        lines.append(f"{fatal}{stack.partition(chr(10))[0]} at {innermost_frames(stack)}")
    return " ".join(filter(None, lines)) or "(none)"


def _frames(text: str) -> list[str]:
    matches = filter(None, map(_FRAME.match, text.splitlines()))
    return [
        f"{match['name']} ({Path(match['path']).name}:{match['line']})"
        for match in matches
        if not _HIDDEN_PATHS & set(Path(match["path"]).parts[-2:])
    ]
