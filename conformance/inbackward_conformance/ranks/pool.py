"""A pool of ranks on this machine, which serve one job after another."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.reduction import DupFd
from typing import TYPE_CHECKING, Any, cast

from torch import multiprocessing

from inbackward_conformance.outcome import BrokenPromise, Finding, NotRun, Outcome
from inbackward_conformance.ranks.job import LAZY_MODULES
from inbackward_conformance.ranks.message import pack, unpack
from inbackward_conformance.ranks.process import Files, serve
from inbackward_conformance.ranks.stacks import innermost_frames, last_output

if TYPE_CHECKING:
    from typing import IO

    from inbackward_conformance.ranks.job import Answer, Job

START_SECONDS = 120.0
STACK_SECONDS = 3.0
SLACK_SECONDS = 2.0
GRACE_SECONDS = 1.0
TAIL_BYTES = 16_000


class Pool:
    """Ranks that start when a job first needs them and then serve jobs of any world size.

    A job of n ranks runs on the first n. A rank that died or hung is replaced before the next job. The first job starts
    at least `at_once` ranks, and waits only for those that it needs. Ranks are forks of one process that has loaded
    torch and the suite, and no implementation, so a new one is there at once.
    """

    world_size = None

    def __init__(self, at_once: int = 1) -> None:
        self._ranks: dict[int, _Process] = {}
        self._at_once = at_once
        self._job_count = 0
        self._rendezvous = tempfile.TemporaryFile(prefix="inbackward-ranks-")  # noqa: SIM115 (closed by close)

    def run(self, job: Job) -> list[Answer]:
        """Return the answers by rank."""
        ranks = self._start(job.world_size)
        self._job_count += 1
        pending = dict(enumerate(ranks))
        answers: dict[int, Answer] = {}
        try:
            message = pack((f"job {self._job_count}", job))
            for rank in ranks:
                rank.connection.send_bytes(message)
            self._collect(job, pending, answers)
        finally:
            self._kill(pending)
        return [answers[number] for number in range(job.world_size)]

    def close(self) -> None:
        """Kill all ranks."""
        self._kill(dict(self._ranks))
        self._rendezvous.close()

    @property
    def pids(self) -> list[int]:
        """The process ids of the ranks."""
        return [rank.process.pid for rank in self._ranks.values() if rank.process.pid]

    def _start(self, world_size: int) -> list[_Process]:
        if sys.platform != "linux":
            raise NotRun("ranks of a pool find each other through /proc, which is there on Linux only; use torchrun")
        self._kill({number: rank for number, rank in self._ranks.items() if not rank.process.is_alive()})
        for number in range(max(world_size, self._at_once)):
            if number not in self._ranks:
                self._ranks[number] = _Process(number, self._rendezvous)
        ranks = [self._ranks[number] for number in range(world_size)]
        for number, rank in enumerate(ranks):
            try:
                rank.wait_until_ready()
            except BaseException:
                self._kill({number: rank})
                raise
        return ranks

    def _collect(self, job: Job, pending: dict[int, _Process], answers: dict[int, Answer]) -> None:
        """Move the answers from `pending` to `answers`."""
        deadline = time.monotonic() + job.seconds
        deaths: list[str] = []
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
                    deaths.append(f"rank {number} of {job.world_size} {rank.describe_exit()}")
                    self._kill({number: rank})
            # Once a rank has finished, no other can wait longer than the timeout of a collective; once a rank has died,
            # the connection errors reach the others at once.
            grace = GRACE_SECONDS if deaths else job.collective_seconds + SLACK_SECONDS
            deadline = min(deadline, time.monotonic() + grace)
        if deaths:
            raise BrokenPromise(Finding(Outcome.CRASHES, "; ".join(deaths), passed=False))
        if pending:
            raise BrokenPromise(Finding(Outcome.HANGS, self._terminate_pending(job, pending, answers), passed=False))

    def _terminate_pending(self, job: Job, pending: dict[int, _Process], answers: dict[int, Answer]) -> str:
        """Terminate the pending ranks and return where each rank was."""
        for rank in pending.values():
            rank.process.terminate()
        lines = {number: answer.summary for number, answer in answers.items()}
        lines |= {number: f"is at {rank.stack()}" for number, rank in pending.items()}
        hanging = " and ".join(str(number) for number in sorted(pending))
        states = "; ".join(f"rank {number} {lines[number]}" for number in sorted(lines))
        return f"rank {hanging} of {job.world_size} did not come to an end (limit {job.seconds:g} s): {states}"

    def _kill(self, ranks: dict[int, _Process]) -> None:
        for rank in ranks.values():
            rank.process.kill()
        for number, rank in ranks.items():
            rank.close()
            self._ranks.pop(number, None)


class _Process:
    """One rank: a process, the connection to it, and the files of its output and stack."""

    def __init__(self, number: int, rendezvous: IO[bytes]) -> None:
        self._output = tempfile.TemporaryFile(prefix="inbackward-ranks-")  # noqa: SIM115 (closed by close)
        self._stacks = tempfile.TemporaryFile(prefix="inbackward-ranks-")  # noqa: SIM115
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*LAZY_MODULES, serve.__module__])
        self.connection, child_connection = context.Pipe()
        files = Files(*(_inherited(file) for file in (rendezvous, self._output, self._stacks)))
        self.process = context.Process(
            target=serve,
            args=(number, dict(os.environ), child_connection, files),
            name=f"rank {number}",
            daemon=True,
        )
        self.process.start()
        self._is_ready = False
        child_connection.close()

    def wait_until_ready(self) -> None:
        """Wait until the rank can run jobs."""
        if self._is_ready:
            return
        wait([self.connection, self.process.sentinel], START_SECONDS)
        with suppress(EOFError):
            self._is_ready = self.connection.poll() and self.connection.recv_bytes() == b"up"
        if not self._is_ready:
            raise RuntimeError(
                f"a rank did not start: it {self.describe_exit()}. A script that starts a pool needs a file, and "
                f"`if __name__ == '__main__':` around what it does: ranks import it"
            )

    def describe_exit(self) -> str:
        """Return the exit code of the process and its last output."""
        self.process.join(STACK_SECONDS)
        return f"died with exit code {self.process.exitcode}; its last output: {last_output(_tail(self._output))}"

    def stack(self) -> str:
        """Return the stack of a terminated process."""
        self.process.join(STACK_SECONDS)
        return innermost_frames(_tail(self._stacks))

    def close(self) -> None:
        """Release the resources of a killed process."""
        self.process.join()
        self.process.close()
        self.connection.close()
        self._output.close()
        self._stacks.close()


class _Inherited:
    """A file descriptor for another process, where it unpickles as an int."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _detach, (DupFd(self._descriptor),)


def _inherited(file: IO[bytes]) -> int:
    return cast("int", _Inherited(file.fileno()))  # which is one where it is used


def _detach(duplicate: Any) -> int:
    descriptor: int = duplicate.detach()
    return descriptor


def _tail(file: IO[bytes]) -> str:
    """Return the end of a file, without moving the position that the process shares."""
    size = os.fstat(file.fileno()).st_size
    start = max(0, size - TAIL_BYTES)
    return os.pread(file.fileno(), size - start, start).decode(errors="replace").strip()
