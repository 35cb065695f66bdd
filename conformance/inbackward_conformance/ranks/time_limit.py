"""A limit on the time of one case."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inbackward_conformance.compatibility import qualified_name
from inbackward_conformance.outcome import OutOfTime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the running code after `seconds`.

    It interrupts Python code, not C code that does not return. There is no limit without SIGALRM or outside the main
    thread.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def out_of_time(_signal: int, frame: FrameType | None) -> None:
        where = f"{qualified_name(frame.f_code)} in {frame.f_code.co_filename}:{frame.f_lineno}" if frame else "unknown"
        raise OutOfTime(f"still running after {seconds:g} s, at {where}")

    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)  # repeated, in case the first is swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
