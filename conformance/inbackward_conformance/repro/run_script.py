"""Runs a script once, and compares how it ends with the record."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Compared, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from inbackward_conformance.plan import Plan
    from inbackward_conformance.repro.failure import Failure

COMPARED_BEGINNING = 40
"""So many characters of two messages are compared; what follows may be an address or a count of objects."""

DIED = re.compile("terminated with (signal|exit code)")
"""What `torch.multiprocessing` says about a rank that died."""

TIMED_OUT = "Timeout ("
"""What `faulthandler.dump_traceback_later` says."""


@dataclass(frozen=True)
class End:
    """How a script ended.

    Attributes:
        status: the exit status, negative for a signal; None if it was still running after the time limit.
        output: standard output and standard error.
    """

    status: int | None
    output: str

    @property
    def error(self) -> str:
        """The first line of the error that ended it, or of what `sys.exit` printed; empty if there was none."""
        if not self.status:
            return ""
        before, _, traceback = self.output.rpartition("Traceback (most recent call last):")
        lines = [line for line in traceback.splitlines() if line.strip()]
        if not before and "Traceback" not in self.output:
            return lines[-1] if lines else ""
        return next((line for line in lines if not line.startswith(" ")), "")

    def __str__(self) -> str:
        """Return a description that follows the word `ends`."""
        if self.status is None:
            return "by the time limit"
        if self.status == 0:
            return "without an error"
        return f"with {_shortened(self.error)}" if self.error else f"with exit status {self.status}"


def run_script(path: Path, seconds: float, python: str = "", imports: Sequence[str] = ()) -> End:
    """Run a script, with all processes that it starts, for up to `seconds`.

    It can import what this process can; with another `python`, what that one can, and what the folders `imports` hold.
    """
    folders = imports if python else [entry or os.curdir for entry in sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603
            [python or sys.executable, str(path)], stdout=output, stderr=output, env=environment, start_new_session=True
        )
        status = None
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(seconds)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # ranks may outlive it
        process.wait()
        output.seek(0)
        return End(status, output.read().decode(errors="replace"))


def unlike_the_record(end: End, failure: Failure) -> str:
    """Return how a script ends and what the record says, if these differ; else an empty string."""
    return "" if _as_recorded(end, failure) else f"ends {end}, the record says {_shortened(failure.detail)}"


def _as_recorded(end: End, failure: Failure) -> bool:
    match failure.outcome:
        case Outcome.HANGS:
            return end.status is None or TIMED_OUT in end.output
        case Outcome.CRASHES:
            return bool(end.status) and ("Traceback" not in end.output or bool(DIED.search(end.output)))
    kind, _, message = end.error.partition(": ")
    told = message if kind == "AssertionError" else end.error
    if told and told[:COMPARED_BEGINNING] in failure.detail:
        return True
    if failure.plan is None:
        return _is_of_assert_close(end) and failure.outcome == Outcome.DIVERGES
    return _differs_as_recorded(end, failure.plan, failure, told)


def _differs_as_recorded(end: End, plan: Plan, failure: Failure, told: str) -> bool:
    kind = end.error.partition(": ")[0]
    match failure.difference.compared:
        case Compared.ERROR:
            return False
        case Compared.AFTER_REFUSAL if kind == "RuntimeError":  # of the backward, which passes in the standard loop
            return "\nrefused: " in f"\n{end.output}"
        case Compared.STANDARD_ERROR:
            return told.startswith("goes through, where the standard loop raises")
        case Compared.RANKS:
            return told.endswith("differs between this rank and rank 0")
        case Compared.STATES:  # neither `assert_close` nor `assert_alike` names what has another number of states
            return _is_of_assert_close(end) or (kind == "AssertionError" and ": there are " in told)
    if plan.ranks:  # the rank that fails first may differ elsewhere
        return _is_of_assert_close(end)
    name = re.escape(told.partition(": ")[0])
    return _is_of_assert_close(end) and re.search(rf"(?<![\w.]){name}\b", failure.detail) is not None


def _is_of_assert_close(end: End) -> bool:
    return end.error.startswith("AssertionError") and "torch/testing/_comparison.py" in end.output.replace(os.sep, "/")


def _shortened(text: str) -> str:
    return textwrap.shorten(text, 100, placeholder=" […]")
