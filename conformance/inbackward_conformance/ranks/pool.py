"""Ranks of this machine that stay up from one case to the next."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import DupFd
from typing import TYPE_CHECKING, Any

from torch import multiprocessing

from inbackward_conformance.outcome import BrokenPromise, Finding, NotRun, Outcome
from inbackward_conformance.ranks.message import pack, unpack
from inbackward_conformance.ranks.process import Files, serve
from inbackward_conformance.ranks.stacks import innermost_frames, last_output

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import IO

    from inbackward_conformance.ranks.job import Answer, Job

SECONDS_TO_START = 120.0
SECONDS_TO_WRITE_STACKS = 3.0
SECONDS_BEHIND = 2.0
SECONDS_AFTER_DEATH = 1.0
TAIL = 16_000


class Pool:
    """Ranks that are started when a job first needs them, and serve every job, of whatever world size, from then on.

    A job of n ranks goes to the first n. One that died or hangs is replaced before the next job. The first job starts
    `at_once` of them: they load torch side by side, and a job waits only for those that it needs.
    """

    def __init__(self, at_once: int = 1) -> None:
        self._ranks: dict[int, _Process] = {}
        self._at_once = at_once
        self._jobs = 0
        self._rendezvous = tempfile.TemporaryFile(prefix="inbackward-ranks-")  # noqa: SIM115 (closed by close)

    def run(self, job: Job) -> list[Answer]:
        """Return the answers, in the order of ranks."""
        ranks = self._up(job.world_size)
        self._jobs += 1
        pending = dict(enumerate(ranks))
        answers: dict[int, Answer] = {}
        try:
            message = pack((f"job {self._jobs}", job))
            for rank in ranks:
                rank.connection.send_bytes(message)
            self._collect(job, pending, answers)
        finally:
            self._discard(pending)
        return [answers[number] for number in range(job.world_size)]

    def close(self) -> None:
        """End all ranks."""
        self._discard(dict(self._ranks))
        self._rendezvous.close()

    @property
    def pids(self) -> list[int]:
        """The processes that are up."""
        return [rank.process.pid for rank in self._ranks.values() if rank.process.pid]

    def _up(self, world_size: int) -> list[_Process]:
        if sys.platform != "linux":
            raise NotRun("ranks of a pool find each other through /proc, which is there on Linux only; use torchrun")
        self._discard({number: rank for number, rank in self._ranks.items() if not rank.process.is_alive()})
        for number in range(max(world_size, self._at_once)):
            if number not in self._ranks:
                self._ranks[number] = _Process(number, self._rendezvous)
        ranks = [self._ranks[number] for number in range(world_size)]
        for number, rank in enumerate(ranks):
            try:
                rank.await_up()
            except BaseException:
                self._discard({number: rank})
                raise
        return ranks

    def _collect(self, job: Job, pending: dict[int, _Process], answers: dict[int, Answer]) -> None:
        """Move the answers from `pending` to `answers`."""
        deadline = time.monotonic() + job.seconds
        last_words: list[str] = []
        while pending:
            by_handle: dict[Any, int] = {}
            for number, rank in pending.items():
                by_handle |= {rank.process.sentinel: number, rank.connection: number}
            ready = wait(by_handle, max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for number in {by_handle[handle] for handle in ready}:
                rank = pending.pop(number)
                try:
                    answers[number] = unpack(rank.connection.recv_bytes())
                except (EOFError, OSError):
                    last_words.append(f"rank {number} of {job.world_size} {rank.last_words()}")
                    self._discard({number: rank})
            # Ranks work side by side: when one is through, no other can be waiting longer than a collective may, and
            # when one is dead, all that wait for it are told at once.
            grace = SECONDS_AFTER_DEATH if last_words else job.patience + SECONDS_BEHIND
            deadline = min(deadline, time.monotonic() + grace)
        if last_words:
            raise BrokenPromise(Finding(Outcome.CRASHES, "; ".join(last_words), passed=False))
        if pending:
            raise BrokenPromise(Finding(Outcome.HANGS, self._report_hang(job, pending, answers), passed=False))

    def _report_hang(self, job: Job, pending: dict[int, _Process], answers: dict[int, Answer]) -> str:
        for rank in pending.values():
            rank.process.terminate()
        lines = {number: answer.summary for number, answer in answers.items()}
        lines |= {number: f"is at {rank.stack()}" for number, rank in pending.items()}
        hanging = " and ".join(str(number) for number in sorted(pending))
        told = "; ".join(f"rank {number} {lines[number]}" for number in sorted(lines))
        return f"rank {hanging} of {job.world_size} did not come to an end (limit {job.seconds:g} s): {told}"

    def _discard(self, ranks: dict[int, _Process]) -> None:
        for rank in ranks.values():
            rank.process.kill()
        for number, rank in ranks.items():
            rank.close()
            self._ranks.pop(number, None)


class _Process:
    """One rank: a process, the line to it, and the files that it leaves its last words in."""

    def __init__(self, number: int, rendezvous: IO[bytes]) -> None:
        self._output = tempfile.TemporaryFile(prefix="inbackward-ranks-")  # noqa: SIM115 (closed by close)
        self._stacks = tempfile.TemporaryFile(prefix="inbackward-ranks-")  # noqa: SIM115
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        inherited = [_Inherited(file.fileno()) for file in (rendezvous, self._output, self._stacks)]
        self.process = context.Process(
            target=_main, args=(number, os.getpid(), theirs, inherited), name=f"rank {number}", daemon=True
        )
        self.process.start()
        self._is_up = False
        theirs.close()

    def await_up(self) -> None:
        """Return when the rank can take jobs."""
        if self._is_up:
            return
        wait([self.connection, self.process.sentinel], SECONDS_TO_START)
        if not self.connection.poll():
            msg = f"a rank did not start: it {self.last_words()}"
            raise RuntimeError(msg)
        try:
            self.connection.recv_bytes()
        except EOFError:
            msg = f"a rank did not start: it {self.last_words()}"
            raise RuntimeError(msg) from None
        self._is_up = True

    def last_words(self) -> str:
        """Say how the process ended, and what it printed last."""
        self.process.join(SECONDS_TO_WRITE_STACKS)
        return f"died with exit code {self.process.exitcode}; its last output: {last_output(_tail(self._output))}"

    def stack(self) -> str:
        """Return the stack of a process that was told to end."""
        self.process.join(SECONDS_TO_WRITE_STACKS)
        return innermost_frames(_tail(self._stacks))

    def close(self) -> None:
        """Release what the parent holds of it; the process was killed before."""
        self.process.join()
        self.process.close()
        self.connection.close()
        self._output.close()
        self._stacks.close()


class _Inherited:
    """A file descriptor that a spawned process inherits; it arrives as a number."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (DupFd(self._descriptor),)


def _arrive(duplicate: Any) -> int:
    descriptor: int = duplicate.detach()
    return descriptor


def _main(number: int, parent: int, connection: Connection, files: Iterable[int]) -> None:
    serve(number, parent, connection, Files(*files))


def _tail(file: IO[bytes]) -> str:
    """Read without moving the position, which the process shares."""
    size = os.fstat(file.fileno()).st_size
    start = max(0, size - TAIL)
    return os.pread(file.fileno(), size - start, start).decode(errors="replace").strip()
