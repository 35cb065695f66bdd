"""Marks errors of an implementation with the call that raised them, so that they are not taken for the suite's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.raised_error import is_observation

if TYPE_CHECKING:
    from types import TracebackType

_CALL = "__inbackward_call__"


class marking_errors:  # noqa: N801 (used like a function)
    """Mark errors that the body of the with statement raises with `call`.

    A class, since `contextmanager` assigns to the traceback of an error, which a frozen dataclass does not permit.
    """

    def __init__(self, call: str) -> None:
        self._call = call

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Mark the error, unless an inner call has raised it."""
        if error is not None and is_observation(error) and call_that_raised(error) is None:
            BaseException.__setattr__(error, _CALL, self._call)  # whatever `__setattr__` its class has


def call_that_raised(error: BaseException) -> str | None:
    """Return the implementation's call that raised `error`; None for an error of the suite or its plans."""
    try:
        call: str = BaseException.__getattribute__(error, _CALL)
    except AttributeError:
        return None
    return call
