"""The main function of a rank of a pool."""

from __future__ import annotations

import faulthandler
import fcntl
import multiprocessing
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple

from inbackward_conformance.ranks.job import run_job, warm_up
from inbackward_conformance.ranks.message import pack, unpack
from inbackward_conformance.ranks.stores import FileStore, PrefixStore

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

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


def serve(number: int, environment: dict[str, str], connection: Connection, files: Files) -> None:
    """Run jobs, in the environment of the parent, until it closes the connection or dies."""
    _exit_with_parent()
    os.environ.clear()
    os.environ.update(environment)  # the fork server has that of its start
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

    The parent holds the other end of a pipe. When it dies, the kernel sends a signal, whose default action ends this
    process even while a function of C keeps the interpreter. The fork server dies once no rank is left.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "a rank of a pool is started by the pool"
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    if not parent.is_alive():  # died before
        os._exit(1)
