"""Ranks that torchrun made: the first of them runs pytest and sends jobs, the others serve.

They talk through the store of the rendezvous that torchrun has set up, so that no process group is needed beside those
of the jobs.
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
from inbackward_conformance.ranks.job import Answer, Job, carry_out, warm_up
from inbackward_conformance.ranks.message import pack, unpack
from inbackward_conformance.ranks.stores import DistStoreError, PrefixStore, Store
from inbackward_conformance.ranks.time_limit import time_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

FOR_EVER = timedelta(days=1)
SECONDS_BEHIND = 2.0
SECONDS_TO_REPORT = 30.0


class Cluster:
    """The ranks of this torchrun, seen from the first of them, which takes part in every job.

    It waits for the others before the first job: a rank that has yet to load torch would look like one that hangs.
    Nobody can replace one of them: after one has hung, all further jobs are `not run`.
    """

    def __init__(self, store: Store, world_size: int) -> None:
        self._store = store
        self._world_size = world_size
        self._numbers = itertools.count()
        self._broken = ""
        store.wait([f"up {rank}" for rank in range(1, world_size)], FOR_EVER)

    def run(self, job: Job) -> list[Answer]:
        """Return the answers, in the order of ranks."""
        if job.world_size > self._world_size:
            raise NotRun(f"{job.world_size} ranks are needed, torchrun made {self._world_size}")
        if self._broken:
            raise NotRun(f"the ranks of torchrun cannot be used any more: {self._broken}")
        number = next(self._numbers)
        _put(self._store, f"job {number}", job)
        started = time.monotonic()
        try:
            with time_limit(job.seconds):
                answers = [carry_out(job, 0, PrefixStore(f"group {number}", self._store))]
        except OutOfTime as error:
            self._broken = f"rank 0 of {job.world_size} did not come to an end: {error}"
            raise BrokenPromise(Finding(Outcome.HANGS, self._broken, passed=False)) from error
        left = job.seconds - (time.monotonic() - started)
        seconds = min(left, job.patience + SECONDS_BEHIND)
        answers += [self._await(number, rank, job, seconds) for rank in range(1, job.world_size)]
        return answers

    def close(self) -> None:
        """Let the other ranks end."""
        _put(self._store, f"job {next(self._numbers)}", None)

    def _await(self, number: int, rank: int, job: Job, seconds: float) -> Answer:
        key = f"answer {number} {rank}"
        try:
            self._store.wait([key], timedelta(seconds=max(seconds, SECONDS_BEHIND)))
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
    """Return the store, the number of this rank, and how many there are.

    Raises:
        NotUnderTorchrun: the environment has no trace of torchrun.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise NotUnderTorchrun(
            "there are no ranks here; start them: "
            "torchrun --nproc-per-node 4 -m inbackward_conformance distributed --implementation NAME"
        )
    store, rank, world_size = next(rendezvous("env://", timeout=FOR_EVER))
    return PrefixStore("inbackward", store), rank, world_size


def serve(store: Store, rank: int) -> None:
    """Carry out jobs until there are no more."""
    # Where torchrun ends a rank because another has, what it was at shows as well; see `_limited`.
    faulthandler.register(signal.SIGTERM, sys.__stderr__ or sys.stderr, chain=True)
    warm_up()
    store.set(f"up {rank}", "")
    for number in itertools.count():
        store.wait([f"job {number}"], FOR_EVER)
        job: Job | None = unpack(store.get(f"job {number}"))
        if job is None:
            return
        if rank >= job.world_size:
            continue
        with _limited(job.seconds):
            answer = carry_out(job, rank, PrefixStore(f"group {number}", store))
        _put(store, f"answer {number} {rank}", answer)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Write the stack when the time is over, and die when rank 0 has had time to put that on record.

    Not at once: torchrun ends all ranks of a machine when one has died.
    """
    faulthandler.dump_traceback_later(seconds, file=sys.__stderr__ or sys.stderr)
    signal.setitimer(signal.ITIMER_REAL, seconds + SECONDS_TO_REPORT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def _put(store: Store, key: str, message: Job | Answer | None) -> None:
    store.set(key, pack(message))  # type: ignore[arg-type]  # bytes are welcome
