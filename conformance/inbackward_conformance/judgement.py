"""What an error that ends a case says about the implementation."""

from __future__ import annotations

from pathlib import Path

from inbackward_conformance.adapter import call_that_raised
from inbackward_conformance.outcome import BrokenPromise, Finding, NotOffered, NotRun, Outcome, OutOfTime


def finding_of(error: BaseException, *, in_setup: bool = False) -> Finding:
    """Return what `error` comes to; `in_setup`: it was raised before or after the case itself."""
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
        case AssertionError() if not in_setup:
            return Finding(Outcome.FAILS, str(error).partition("\nassert ")[0], passed=False)
    return Finding(Outcome.ERROR, f"{what}{_where(error)}", passed=False)


def _where(error: BaseException) -> str:
    traceback = error.__traceback__
    if traceback is None:
        return ""
    while traceback.tb_next:
        traceback = traceback.tb_next
    return f" ({Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno})"
