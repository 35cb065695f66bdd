"""Marks errors of an implementation with the call that raised them, so that they are not taken for the suite's."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_CALL = "__inbackward_call__"


@contextmanager
def marking_errors(call: str) -> Iterator[None]:
    """Mark errors that the body of the with statement raises with `call`."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if not hasattr(error, _CALL):
            setattr(error, _CALL, call)
        raise


def call_that_raised(error: BaseException) -> str | None:
    """Return the implementation's call that raised `error`; None for an error of the suite or its plans."""
    return getattr(error, _CALL, None)
