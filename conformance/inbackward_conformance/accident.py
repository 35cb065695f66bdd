"""Tells an error that somebody meant to raise from an accident."""

from __future__ import annotations

import dis
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_ALWAYS_ACCIDENTAL = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RecursionError)
_ACCIDENTAL_UNLESS_WRITTEN = (RuntimeError, TypeError, ValueError)


def is_accidental(error: Exception) -> bool:
    """Whether nobody meant to raise `error`.

    A RuntimeError, TypeError or ValueError is a refusal where a `raise` statement made it ("needs a closure"), and an
    accident where the interpreter or torch's own kernels did ("missing 1 required positional argument", "a leaf
    Variable that requires grad is being used in an in-place operation"): the last instruction of the innermost frame
    tells. An error without a message refuses nothing clearly.
    """
    if isinstance(error, _ALWAYS_ACCIDENTAL) or not str(error).strip():
        return True
    return isinstance(error, _ACCIDENTAL_UNLESS_WRITTEN) and not _written(error.__traceback__)


def _written(traceback: TracebackType | None) -> bool:
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code.co_code
    return dis.opname[code[traceback.tb_lasti]] == "RAISE_VARARGS"
