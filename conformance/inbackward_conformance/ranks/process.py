"""The main function of a rank that a pool has started."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

from inbackward_conformance.ranks.job import carry_out, warm_up
from inbackward_conformance.ranks.message import pack, unpack
from inbackward_conformance.ranks.stores import FileStore, PrefixStore

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PR_SET_PDEATHSIG = 1
LOOPBACK = "lo"


class Files(NamedTuple):
    """Descriptors of files without a name, which the rank shares with its parent; they vanish with the two.

    Attributes:
        rendezvous: the store through which ranks find each other.
        output: what is printed.
        stacks: where the Python stack goes when the rank is told to end.
    """

    rendezvous: int
    output: int
    stacks: int


def serve(number: int, parent: int, connection: Connection, files: Files) -> None:
    """Carry out jobs as they come, until the parent hangs up or dies."""
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's affair
    os.dup2(files.output, sys.stdout.fileno() if sys.stdout else 1)
    os.dup2(files.output, 2)
    # The stack is written, then the rank ends as by any SIGTERM: who waits for its end finds the stack complete.
    with os.fdopen(files.stacks, "wb", closefd=False) as stacks:
        faulthandler.register(signal.SIGTERM, stacks, chain=True)
        faulthandler.enable()
        if LOOPBACK in (name for _, name in socket.if_nameindex()):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)  # the host's own name may lead nowhere
        warm_up()
        gc.freeze()  # what is there by now need not be looked at after each job
        store = FileStore(f"/proc/self/fd/{files.rendezvous}", -1)
        connection.send_bytes(b"up")
        while True:
            try:
                name, job = unpack(connection.recv_bytes())
            except (EOFError, OSError):
                return
            os.ftruncate(files.output, 0)
            os.lseek(files.output, 0, os.SEEK_SET)
            connection.send_bytes(pack(carry_out(job, number, PrefixStore(name, store))))


def _die_with(parent: int) -> None:
    """See to it that this process does not outlive the one that started it, whatever it is doing then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    mother = multiprocessing.parent_process()

    def follow() -> None:
        if mother:
            mother.join()
        os._exit(1)

    threading.Thread(target=follow, name="dies with its parent", daemon=True).start()
