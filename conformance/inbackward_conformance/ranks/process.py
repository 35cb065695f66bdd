"""The main function of a rank of a pool."""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

from inbackward_conformance.ranks.job import run_job, warm_up
from inbackward_conformance.ranks.message import pack, unpack
from inbackward_conformance.ranks.stores import FileStore, PrefixStore

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PR_SET_PDEATHSIG = 1
LOOPBACK = "lo"


class Files(NamedTuple):
    """The descriptors of unnamed files that the rank shares with its parent.

    Attributes:
        rendezvous: the file of the store.
        output: stdout and stderr.
        stacks: the Python stack at SIGTERM.
    """

    rendezvous: int
    output: int
    stacks: int


def serve(number: int, connection: Connection, files: Files) -> None:
    """Run jobs until the parent closes the connection or dies."""
    _exit_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.dup2(files.output, sys.stdout.fileno() if sys.stdout else 1)
    os.dup2(files.output, 2)
    # SIGTERM writes the stack, then ends the process, so the stack is complete once the process has ended.
    with os.fdopen(files.stacks, "wb", closefd=False) as stacks:
        faulthandler.register(signal.SIGTERM, stacks, chain=True)
        faulthandler.enable()
        if LOOPBACK in (name for _, name in socket.if_nameindex()):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)  # the host name may not resolve
        warm_up()
        store = FileStore(f"/proc/self/fd/{files.rendezvous}", -1)
        connection.send_bytes(b"up")
        while True:
            try:
                name, job = unpack(connection.recv_bytes())
            except (EOFError, OSError):
                return
            os.ftruncate(files.output, 0)
            os.lseek(files.output, 0, os.SEEK_SET)
            connection.send_bytes(pack(run_job(job, number, PrefixStore(name, store))))


def _exit_with_parent() -> None:
    """End this process when its parent dies, whatever it is doing.

    The thread ends it when the process of the pool dies, as soon as no other thread keeps the interpreter. The signal
    comes even then: from the fork server, which dies with the process of the pool.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent_process = multiprocessing.parent_process()

    def exit_after_parent() -> None:
        if parent_process:
            parent_process.join()
        os._exit(1)

    threading.Thread(target=exit_after_parent, name="dies with its parent", daemon=True).start()
