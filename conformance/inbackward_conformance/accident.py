"""Distinguishes deliberate errors from accidental ones."""

from __future__ import annotations

import dis
from typing import TYPE_CHECKING

from inbackward_conformance.raised_error import UNREADABLE, message_of

if TYPE_CHECKING:
    from types import TracebackType

_ALWAYS_ACCIDENTAL = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RecursionError)
_ACCIDENTAL_UNLESS_WRITTEN = (RuntimeError, TypeError, ValueError)


def is_accidental(error: BaseException) -> bool:
    """Return whether `error` was raised by accident.

    A RuntimeError, TypeError or ValueError is a refusal if a `raise` statement raised it ("needs a closure"), and an
    accident if the interpreter or a kernel of torch did ("missing 1 required positional argument", "a leaf Variable
    that requires grad is being used in an in-place operation"); the last instruction of the innermost frame decides.
    An error without a message counts as an accident, and so does one that is no Exception, such as SystemExit.
    """
    if isinstance(error, _ALWAYS_ACCIDENTAL) or not isinstance(error, Exception):
        return True
    if message_of(error).strip() in {"", UNREADABLE}:
        return True
    return isinstance(error, _ACCIDENTAL_UNLESS_WRITTEN) and not _written(error.__traceback__)


def _written(traceback: TracebackType | None) -> bool:
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code.co_code
    return dis.opname[code[traceback.tb_lasti]] == "RAISE_VARARGS"
