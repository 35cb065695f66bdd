"""Ranks of torchrun: rank 0 runs pytest and sends jobs, the others serve.

They communicate through the store of torchrun's rendezvous, without a process group.
"""

from __future__ import annotations

import faulthandler
import itertools
import os
import signal
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from torch.distributed.rendezvous import rendezvous

from inbackward_conformance.outcome import BrokenPromise, Finding, NotRun, Outcome, OutOfTime
from inbackward_conformance.ranks import NotUnderTorchrun
from inbackward_conformance.ranks.job import Answer, Job, run_job, warm_up
from inbackward_conformance.ranks.message import pack, unpack
from inbackward_conformance.ranks.stores import DistStoreError, PrefixStore, Store
from inbackward_conformance.ranks.time_limit import time_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

STORE_TIMEOUT = timedelta(days=1)
SLACK_SECONDS = 2.0
REPORT_SECONDS = 30.0


class Cluster:
    """The ranks of torchrun, as rank 0 uses them; it takes part in every job.

    Creating it waits for all ranks, because a rank that is still loading torch would look like a hang. A rank cannot
    be replaced: after a hang all further jobs are `not run`.
    """

    is_dry = False

    def __init__(self, store: Store, world_size: int) -> None:
        self._store = store
        self.world_size = world_size
        self._job_numbers = itertools.count()
        self._broken = ""
        store.wait([f"up {rank}" for rank in range(1, world_size)], STORE_TIMEOUT)

    @property
    def description(self) -> str:
        """What has run, on one line."""
        return f"on {self.world_size:,} ranks of torchrun"

    def run(self, job: Job) -> list[Answer]:
        """Return the answers by rank."""
        if job.world_size > self.world_size:
            raise NotRun(f"{job.world_size} ranks are needed, torchrun made {self.world_size}")
        if self._broken:
            raise NotRun(f"the ranks of torchrun cannot be used any more: {self._broken}")
        number = next(self._job_numbers)
        _put(self._store, f"job {number}", job)
        started = time.monotonic()
        try:
            with time_limit(job.seconds):
                answers = [run_job(job, 0, PrefixStore(f"group {number}", self._store))]
        except OutOfTime as error:
            self._broken = f"rank 0 of {job.world_size} did not come to an end: {error}"
            raise BrokenPromise(Finding(Outcome.HANGS, self._broken, passed=False)) from error
        seconds_left = job.seconds - (time.monotonic() - started)
        seconds = min(seconds_left, job.collective_seconds + SLACK_SECONDS)
        answers += [self._wait_for_answer(number, rank, job, seconds) for rank in range(1, job.world_size)]
        return answers

    def close(self) -> None:
        """Make the other ranks exit."""
        _put(self._store, f"job {next(self._job_numbers)}", None)

    def _wait_for_answer(self, number: int, rank: int, job: Job, seconds: float) -> Answer:
        key = f"answer {number} {rank}"
        try:
            self._store.wait([key], timedelta(seconds=max(seconds, SLACK_SECONDS)))
        except DistStoreError as error:
            self._broken = (
                f"rank {rank} of {job.world_size} did not come to an end (limit {job.seconds:g} s); "
                f"its stack is in its standard error"
            )
            raise BrokenPromise(Finding(Outcome.HANGS, self._broken, passed=False)) from error
        answer: Answer = unpack(self._store.get(key))
        self._store.delete_key(key)
        return answer


def join() -> tuple[Store, int, int]:
    """Return the store, the rank, and the world size.

    Raises:
        NotUnderTorchrun: if the environment variables of torchrun are not set.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise NotUnderTorchrun(
            "there are no ranks here; start them: "
            "torchrun --nproc-per-node 4 -m inbackward_conformance distributed --implementation NAME"
        )
    store, rank, world_size = next(rendezvous("env://", timeout=STORE_TIMEOUT))
    return PrefixStore("inbackward", store), rank, world_size


def serve(store: Store, rank: int) -> None:
    """Run jobs until the cluster is closed."""
    # torchrun terminates all ranks when one has died; each then writes its stack.
    faulthandler.register(signal.SIGTERM, sys.__stderr__ or sys.stderr, chain=True)
    warm_up()
    store.set(f"up {rank}", "")
    for number in itertools.count():
        store.wait([f"job {number}"], STORE_TIMEOUT)
        job: Job | None = unpack(store.get(f"job {number}"))
        if job is None:
            return
        if rank >= job.world_size:
            continue
        with _exit_after(job.seconds):
            answer = run_job(job, rank, PrefixStore(f"group {number}", store))
        _put(store, f"answer {number} {rank}", answer)


@contextmanager
def _exit_after(seconds: float) -> Iterator[None]:
    """Write the stack after `seconds`, and exit once rank 0 has had time to record the hang.

    Exiting at once would make torchrun terminate rank 0 as well.
    """
    faulthandler.dump_traceback_later(seconds, file=sys.__stderr__ or sys.stderr)
    signal.setitimer(signal.ITIMER_REAL, seconds + REPORT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def _put(store: Store, key: str, message: Job | Answer | None) -> None:
    store.set(key, pack(message))  # type: ignore[arg-type]  # the stub lacks bytes
