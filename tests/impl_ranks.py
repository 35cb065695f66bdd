"""Ranks for the tests of the reference implementation: processes that start once and run one check after another."""

from __future__ import annotations

import atexit
import faulthandler
import functools
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from torch import distributed, set_num_threads

START, TIMEOUT, ANSWER = 180, 30, 180  # seconds: for the processes, for a collective, for a check
RANKS = 4

Check = Callable[..., None]


@functools.cache
def shared() -> Ranks:
    """The ranks that all modules of tests use; they end with the session."""
    ranks = Ranks()
    atexit.register(ranks.close)
    return ranks


class Ranks:
    """Four processes; a check runs on the first few of them."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        self._connections: list[Connection] = []
        self._processes = []
        for rank in range(RANKS):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, Path(self._folder.name), theirs), daemon=True)
            process.start()
            self._connections.append(ours)
            self._processes.append(process)
        for connection in self._connections:
            assert connection.poll(START)
            connection.recv()

    def run(self, check: Check, size: int = 2, *args: Any, **kwargs: Any) -> None:
        """Runs `check(group, *args, **kwargs)` on each rank of a group of this size."""
        connections = self._connections[:size]
        for connection in connections:
            connection.send((size, check, args, kwargs))
        failures = []
        for rank, connection in enumerate(connections):
            if not connection.poll(ANSWER):
                failures.append(f"rank {rank}: no answer")
                shared.cache_clear()  # what this rank may answer later belongs to no other check
            elif error := connection.recv():
                failures.append(f"rank {rank} of {size}:\n{error}")
        assert not failures, "\n".join(failures)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._folder.cleanup()


def _serve(rank: int, folder: Path, connection: Connection) -> None:
    set_num_threads(1)
    rendezvous = f"file://{folder / 'rendezvous'}"
    timeout = timedelta(seconds=TIMEOUT)
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=RANKS, timeout=timeout)
    groups = {size: distributed.new_group(list(range(size))) for size in range(1, RANKS + 1)}
    connection.send("ready")
    while True:
        try:
            size, check, args, kwargs = connection.recv()
        except EOFError:
            return
        try:
            faulthandler.dump_traceback_later(TIMEOUT / 2)  # for the one who looks for a deadlock
            check(groups[size], *args, **kwargs)
            connection.send(None)
        except BaseException:  # noqa: BLE001
            connection.send(traceback.format_exc())
        faulthandler.cancel_dump_traceback_later()
