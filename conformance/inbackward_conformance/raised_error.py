"""Errors of code under test: which of them are observations, and their text, whatever their class does."""

from __future__ import annotations

import re

UNREADABLE = "(its message cannot be read)"

_MENTIONS_STEPS = re.compile(r"\b(already|been|was|were) (stepped|updated)\b", re.IGNORECASE)

_OF_THE_RUN = frozenset({__name__.partition(".")[0], "_pytest", "hypothesis"})
"""Packages whose own exceptions that are no `Exception` end a case or a run: a time limit, for example."""


def is_observation(error: BaseException) -> bool:
    """Return whether `error` says something about the code that raised it.

    Ctrl-C says nothing about it, but a subclass of KeyboardInterrupt does.
    """
    if isinstance(error, Exception):
        return True
    if type(error) is KeyboardInterrupt or isinstance(error, GeneratorExit):
        return False
    return type(error).__module__.partition(".")[0] not in _OF_THE_RUN


def message_of(error: BaseException) -> str:
    """Return the message of `error`, as text that can be written to a file, or `UNREADABLE` if `__str__` fails."""
    try:
        message = str.__str__(str(error))
    except BaseException as failure:
        if not is_observation(failure):
            raise
        return UNREADABLE
    return writable(message)


def error_in_stage(error: BaseException) -> BaseException:
    """Return the error in the stage of a pipeline that torch has raised another one from; any other error itself."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None or error.__cause__ is None:
        return error
    module = str(traceback.tb_frame.f_globals.get("__name__"))
    return error_in_stage(error.__cause__) if module.startswith("torch.distributed.pipelining.") else error


def mentions_steps(error: BaseException) -> bool:
    """Return whether the message of `error` says that parameters were stepped."""
    return bool(_MENTIONS_STEPS.search(message_of(error)))


def writable(text: str) -> str:
    """Return `text` with escapes for what has no encoding, such as half of a surrogate pair."""
    return text.encode(errors="backslashreplace").decode()


def text_of(error: BaseException) -> str:
    """Return the type and the message of `error`."""
    return f"{type(error).__name__}: {message_of(error)}".strip()
