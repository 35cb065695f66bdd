"""Ranks that stay up: what becomes of those that misbehave, and of the cases after them."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from inbackward_conformance.outcome import BrokenPromise, Finding, NotOffered, Outcome
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import Backward, WrapDDP
from inbackward_conformance.ranks.job import Rank
from inbackward_conformance.ranks.message import pack, unpack
from inbackward_conformance.ranks.on_ranks import OnRanks, run_observed, run_standard
from inbackward_conformance.ranks.pool import Pool
from inbackward_conformance.tensors import same_bits
from inbackward_conformance.training.compare_ranks import compare_ranks

SECONDS = 15.0
"""For those that misbehave, on ranks that are up; whoever has to load torch first gets more."""

AMPLE = 120.0
PLAN = Plan("MLP", (Assignment("SGD", {"lr": 0.1}),), (Backward(),) * 3, before=(WrapDDP(),), ranks=Ranks(2))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pids = pool.pids
    pool.close()
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not list(Path(tempfile.gettempdir()).glob("inbackward-ranks-*"))


def finding(pool: Pool, name: str) -> Finding:
    """Run the plan by the standard loop and by the implementation of that name."""
    hostile = f"hostile:{name}"
    standard = OnRanks(pool, hostile, "cpu", AMPLE).call(2, run_standard, PLAN)
    seconds = AMPLE if name == "Sound" else SECONDS
    try:
        return compare_ranks(standard, OnRanks(pool, hostile, "cpu", seconds).call(2, run_observed, PLAN))
    except BrokenPromise as error:
        return error.finding


@pytest.fixture
def next_case(pool: Pool) -> Iterator[None]:
    """The case after it runs as if nothing had been."""
    finding(pool, "Sound")  # ranks are up
    yield
    assert finding(pool, "Sound").outcome is Outcome.CONFORMS


@pytest.mark.usefixtures("next_case")
@pytest.mark.parametrize(
    ("name", "outcome", "detail"),
    [
        ("Sound", Outcome.CONFORMS, ""),
        ("Prints", Outcome.CONFORMS, ""),
        ("Loops", Outcome.HANGS, r"rank 0 .*; rank 1 is at misbehave \(hostile.py:\d+\) < backward \(hostile.py:\d+\)"),
        ("Exits", Outcome.CRASHES, "rank 1 of 2 died with exit code 3; its last output: these are my last words"),
        ("Segfaults", Outcome.CRASHES, "rank 1 of 2 died with exit code -11; .*Segmentation fault"),
        ("PrintsAndExits", Outcome.CRASHES, "rank 1 of 2 died with exit code 4; its last output: x{300}"),
        ("Mismatches", Outcome.CRASHES, "gloo"),
        (
            "Waits",
            Outcome.HANGS,
            r"ranks wait for each other: rank 0 in event 3, Backward\(\); rank 1 in event 3, Backward\(\): .*Timed out",
        ),
        ("Raises", Outcome.REFUSES, "rank 1: .* raises RuntimeError: rank 1 will not"),
        ("RaisesAndKeeps", Outcome.REFUSES, "rank 1: .* raises RuntimeError: rank 1 will not"),
        ("Drifts", Outcome.DIVERGES, "rank 0: parameter '0.weight' differs from the standard loop"),
    ],
)
def test_outcome(pool: Pool, name: str, outcome: Outcome, detail: str) -> None:
    observed = finding(pool, name)
    assert observed.outcome is outcome, observed.detail
    assert re.search(detail, observed.detail, re.DOTALL), observed.detail
    assert observed.passed is (outcome is Outcome.CONFORMS)


def test_ranks_stay_up(pool: Pool) -> None:
    """The same processes serve case after case; a larger world adds to them."""
    finding(pool, "Sound")
    before = pool.pids
    for name in ("Sound", "Raises", "Prints"):
        finding(pool, name)
    assert pool.pids == before


def test_ranks_leave_at_once_when_all_of_them_raise(pool: Pool) -> None:
    """The frames of the error hold the process group; ranks that let go of both at once hung, one in ten."""
    ranks = OnRanks(pool, "hostile:OffersNothing", "cpu", AMPLE)
    plan = Plan("SparseEmbedding", PLAN.assignments, (), before=PLAN.before, ranks=PLAN.ranks)
    for _ in range(40):
        with pytest.raises(NotOffered, match="nothing of it"):
            ranks.call(2, run_observed, plan)


def test_descriptors_do_not_leak(pool: Pool) -> None:
    """Tensors travel as bytes."""
    finding(pool, "Sound")

    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    for _ in range(3):
        finding(pool, "Sound")
    assert opened() == before


TENSORS = {
    "scalar": torch.tensor(1.5),
    "empty": torch.empty(0, 3),
    "signs of zero and NaN": torch.tensor([0.0, -0.0, float("nan"), float("inf")]),
    "bfloat16": torch.arange(4, dtype=torch.bfloat16),
    "bool": torch.tensor([True, False]),
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "transposed": torch.arange(6).reshape(2, 3).t(),
    "sparse": torch.eye(3).to_sparse(),
    "parameter": nn.Parameter(torch.ones(2, 2), requires_grad=False),
    "requires grad": torch.ones(2, requires_grad=True),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_tensors_arrive_to_the_bit(tensor: Tensor) -> None:
    arrived = unpack(pack({"states": [tensor]}))["states"][0]
    assert type(arrived) is type(tensor)
    assert arrived.requires_grad == tensor.requires_grad
    assert same_bits(arrived, tensor)


def test_a_tensor_that_arrived_can_be_changed() -> None:
    assert unpack(pack(torch.zeros(3))).add_(1).tolist() == [1, 1, 1]


OWNER = """
import sys
sys.path[:0] = {path!r}
if __name__ == "__main__":
    from test_ranks import OnRanks, Pool, PLAN, keep_the_interpreter, run_observed
    pool = Pool()
    OnRanks(pool, "hostile:Sound", "cpu", 120.0).call(2, run_observed, PLAN)
    print(*pool.pids, flush=True)
    {last}
"""

LOOPS = 'OnRanks(pool, "hostile:Loops", "cpu", 120.0).call(2, run_observed, PLAN)'
KEEPS_THE_INTERPRETER = 'OnRanks(pool, "hostile:Sound", "cpu", 120.0).call(2, keep_the_interpreter, {pipe!r})'


def keep_the_interpreter(rank: Rank, _: str, pipe: str) -> None:
    """Say so on a named pipe, and sleep in a function of C that lets no other thread run Python."""
    if rank.number == 0:
        Path(pipe).write_text("", encoding="utf-8")
    ctypes.PyDLL(None).sleep(int(AMPLE) * 10)


@pytest.mark.parametrize(
    ("signal_number", "last"),
    [
        (signal.SIGKILL, LOOPS),
        (signal.SIGKILL, KEEPS_THE_INTERPRETER),
        (signal.SIGINT, LOOPS),
        (signal.SIGTERM, LOOPS),
    ],
)
def test_nothing_outlives_the_parent(tmp_path: Path, signal_number: int, last: str) -> None:
    """Killed or interrupted while a rank runs, it leaves no process and no file of ours behind."""
    script = tmp_path / "owner.py"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    script.write_text(OWNER.format(path=[p for p in sys.path if p], last=last.format(pipe=str(pipe))))
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment) as owner:
        assert owner.stdout
        ranks = [os.pidfd_open(int(pid)) for pid in owner.stdout.readline().split()]
        assert len(ranks) == 2
        if last == KEEPS_THE_INTERPRETER:
            pipe.read_bytes()
        owner.send_signal(signal_number)
        owner.wait(AMPLE)
    left = list(ranks)
    while left and (ended := wait(left, AMPLE)):
        left = [rank for rank in left if rank not in ended]
    assert not left
    assert not list(tmp_path.glob("inbackward-*"))
    for rank in ranks:
        os.close(rank)
