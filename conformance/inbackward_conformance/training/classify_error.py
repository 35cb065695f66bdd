"""Turns an error that ends a case into a finding."""

from __future__ import annotations

import traceback
from pathlib import Path

from inbackward_conformance.adapters.marked_errors import call_that_raised
from inbackward_conformance.outcome import BrokenPromise, Finding, NotOffered, NotRun, Outcome, OutOfTime
from inbackward_conformance.specification import REQUIREMENTS


def classify_error(error: BaseException, *, in_setup: bool = False) -> Finding:
    """Return the finding of `error`; `in_setup` if it was raised before or after the case itself."""
    what = f"{type(error).__name__}: {error}".strip()
    origin = call_that_raised(error)
    match error:
        case BrokenPromise():
            return error.finding
        case NotOffered():
            return Finding(Outcome.NOT_OFFERED, str(error))
        case NotRun():
            return Finding(Outcome.NOT_RUN, str(error))
        case OutOfTime():
            return Finding(Outcome.HANGS, str(error), passed=False)
        case _ if origin:
            return Finding(Outcome.FAILS, f"{origin} raises {what}", passed=False)
        case AssertionError() if not in_setup and _innermost(error).parent == REQUIREMENTS:
            return Finding(Outcome.FAILS, str(error).partition("\nassert ")[0], passed=False)
    return Finding(Outcome.ERROR, f"{what} ({_innermost(error).name}:{_line(error)})", passed=False)


def _innermost(error: BaseException) -> Path:
    """Return the file that raised `error`."""
    return Path(traceback.extract_tb(error.__traceback__)[-1].filename)


def _line(error: BaseException) -> int | None:
    return traceback.extract_tb(error.__traceback__)[-1].lineno
