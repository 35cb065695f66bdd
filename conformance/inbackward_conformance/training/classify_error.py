"""Turns an error that ends a case into a finding."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from inbackward_conformance.adapters.marked_errors import call_that_raised
from inbackward_conformance.outcome import BrokenPromise, Finding, NotOffered, NotRun, Outcome, OutOfTime
from inbackward_conformance.raised_error import is_observation, message_of, text_of
from inbackward_conformance.specification import REQUIREMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator


def classify_error(error: BaseException, *, in_setup: bool = False) -> Finding:
    """Return the finding of `error`; `in_setup` if it was raised before or after the case itself."""
    origin = call_that_raised(error)
    match error:
        case BrokenPromise():
            return error.finding
        case NotOffered():
            return Finding(Outcome.NOT_OFFERED, message_of(error))
        case NotRun():
            return Finding(Outcome.NOT_RUN, message_of(error))
        case OutOfTime():
            return Finding(Outcome.HANGS, str(error), passed=False)
        case _ if origin:
            return Finding(Outcome.FAILS, f"{origin} raises {text_of(error)}", passed=False)
        case AssertionError() if not in_setup and _innermost(error).parent == REQUIREMENTS:
            return Finding(Outcome.FAILS, message_of(error).partition("\nassert ")[0], passed=False)
    return Finding(Outcome.ERROR, f"{text_of(error)} ({_innermost(error).name}:{_line(error)})", passed=False)


@contextmanager
def printable_errors() -> Iterator[None]:
    """Raise a `BrokenPromise` with the finding of an error that pytest and others cannot handle; other errors pass.

    It has the traceback of the error.
    """
    try:
        yield
    except BaseException as error:
        if not is_observation(error) or _is_printable(error):
            raise
        broken = BrokenPromise(classify_error(error)).with_traceback(error.__traceback__)
        try:
            raise broken
        finally:
            broken.__context__ = None  # Hypothesis looks at it


def _is_printable(error: BaseException) -> bool:
    """Return whether pytest can print `error` and the errors before it, and others can compare it and pass it on."""
    kind = type(error)
    if not isinstance(error, Exception) or isinstance(error, StopIteration):  # it ends a run, or a generator
        return False
    if kind.__eq__ is not object.__eq__ or hasattr(kind, "__bool__") or hasattr(kind, "__len__"):
        return False
    try:
        traceback.format_exception_only(error)
        error.__traceback__ = error.__traceback__
        return message_of(error) == str(error)
    except Exception:  # noqa: BLE001 (its class may do anything)
        return False


def _innermost(error: BaseException) -> Path:
    """Return the file that raised `error`."""
    return Path(traceback.extract_tb(error.__traceback__)[-1].filename)


def _line(error: BaseException) -> int | None:
    return traceback.extract_tb(error.__traceback__)[-1].lineno
