"""Distributed runs from the outside: pytest with a pool, and pytest under torchrun."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Suite, read_record

OPTIONS = ("--distributed", "--case-seconds", "40", "-p", "no:cacheprovider")


def test_a_rank_that_dies_is_a_case_that_crashes(suite: Suite) -> None:
    """The run goes on, and the record is complete; nobody is blamed for the standard loop."""
    names = [f"--implementation=hostile:{name}" for name in ("Exits", "StandardLoopExits", "Sound")]
    result = suite.run(*OPTIONS, *names, "-k", "two_optimizers", chapter="ddp")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = {line["implementation"].partition(":")[2]: line["outcome"] for line in suite.cases()}
    assert outcomes == {"Exits": "crashes", "StandardLoopExits": "error", "Sound": "conforms"}


class Torchrun:
    """Two agents of two ranks each, on this machine."""

    def __init__(self, report: Path) -> None:
        self.report = report

    def run(self, *arguments: str) -> list[tuple[int, str]]:
        """Return exit status and output of both agents."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2"]
        command += ["--master-addr=127.0.0.1", f"--master-port={port}"]
        suite = ["-m", "inbackward_conformance", "distributed", "--conformance-report", str(self.report)]
        agents = [
            subprocess.Popen(
                [*command, f"--node-rank={rank}", *suite, "-p", "no:randomly", *OPTIONS[1:], *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            )
            for rank in range(2)
        ]
        try:
            return [(agent.returncode, output) for agent in agents for output, _ in [agent.communicate(timeout=300)]]
        finally:
            for agent in agents:
                agent.kill()

    def outcomes(self) -> dict[str, str]:
        record = read_record(self.report)
        assert record[-1]["kind"] == "footer"
        return {line["case"]: line["outcome"] for line in record if line["kind"] == "case"}


@pytest.fixture
def torchrun(suite: Suite) -> Torchrun:
    return Torchrun(suite.report.with_name("torchrun.jsonl"))


def test_torchrun_gives_what_the_pool_gives(torchrun: Torchrun, suite: Suite) -> None:
    arguments = ("--implementation=hostile:Raises", "-k", "equality and after")
    agents = torchrun.run(*arguments)
    assert [status for status, _ in agents] == [1, 0], agents
    suite.run(*OPTIONS, *arguments, chapter="ddp")
    pool = {line["case"]: line["outcome"] for line in suite.cases()}
    assert torchrun.outcomes() == pool
    assert pool == {"after-1": "conforms", "after-2": "refuses", "after-3": "refuses", "after-4": "refuses"}


def test_a_rank_of_torchrun_that_hangs(torchrun: Torchrun) -> None:
    """Nobody can replace it: the record says which case hangs, and that the others were not run."""
    agents = torchrun.run("--implementation=hostile:Loops", "-k", "equality and after")
    assert agents[0][0] == 1
    assert "in misbehave" in agents[0][1]
    assert list(torchrun.outcomes().values()) == ["conforms", "hangs", "not run", "not run"]


def test_without_torchrun_there_is_a_remedy(pytester: pytest.Pytester) -> None:
    result = pytester.runpython_c("import sys; from inbackward_conformance.__main__ import main; main(['distributed'])")
    result.stderr.fnmatch_lines(["*there are no ranks here; start them: torchrun --nproc-per-node 4 *"])
