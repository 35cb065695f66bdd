"""Where in the user's own code an error was raised."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

from inbackward_conformance.raised_error import message_of

_NOT_OF_THE_USER = (Path(torch.__file__).parent, Path(__file__).parent.parent)


def described(error: BaseException) -> str:
    """Return the type of an error, the first line of its message, and where it was raised."""
    lines = message_of(error).strip().splitlines() or ["(no message)"]
    place = place_of(error)
    return f"{type(error).__name__}: {lines[0]}" + (f" ({place})" if place else "")


def place_of(error: BaseException) -> str:
    """Return where the innermost call outside torch and the suite is, as `model.py:12`; empty if there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not any(path.is_relative_to(folder) for folder in _NOT_OF_THE_USER):
            return f"{path.name}:{frame.lineno}"
    return ""
