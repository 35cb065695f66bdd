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
    assert "on 4 ranks of torchrun" in agents[0][1]
    assert read_record(torchrun.report)[0]["world_size"] == 4
    suite.run(*OPTIONS, *arguments, chapter="ddp")
    assert suite.record()[0]["world_size"] is None
    pool = {line["case"]: line["outcome"] for line in suite.cases()}
    assert torchrun.outcomes() == pool
    assert pool == {"after-1": "conforms", "after-2": "refuses", "after-3": "refuses", "after-4": "refuses"}


def test_a_rank_of_torchrun_that_hangs(torchrun: Torchrun) -> None:
    """Nobody can replace it: the record says which case hangs, and that the others were not run."""
    agents = torchrun.run("--implementation=hostile:Loops", "-k", "equality and after")
    assert agents[0][0] == 1
    assert "in misbehave" in agents[0][1]
    assert list(torchrun.outcomes().values()) == ["conforms", "hangs", "not run", "not run"]


class DryRun:
    """The distributed chapters, run dry on a fake process group."""

    def __init__(self, suite: Suite, pytester: pytest.Pytester) -> None:
        self.suite = suite
        self._pytester = pytester

    def __call__(self, world_size: int, *arguments: str) -> pytest.RunResult:
        command = [sys.executable, "-m", "inbackward_conformance", "distributed", "--dry-run", str(world_size)]
        options = ["--conformance-report", str(self.suite.report), "-p", "no:randomly", *OPTIONS[1:]]
        return self._pytester.run(*command, *options, *arguments)

    def details(self) -> dict[str, str]:
        return {line["case"]: line["detail"] for line in self.suite.cases()}


@pytest.fixture
def dry_run(suite: Suite, pytester: pytest.Pytester) -> DryRun:
    return DryRun(suite, pytester)


BUILT = "dry run: built, sharded and attached on rank 0 of {}; no values were compared"


def test_a_dry_run_builds_plans_for_many_ranks(dry_run: DryRun) -> None:
    """Wrapped before attachment and after it, sharded over a mesh, with tensor parallelism; it compares nothing."""
    selected = "equality and 4 or fully_shard and 4 or (attached_before or flat) and not original or averaged or power"
    result = dry_run(1024, "--implementation=hostile:Sound", "-k", selected)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["dry run for 1,024 ranks: built, sharded and attached * plans on rank 0; no values were compared"]
    )
    header, footer = dry_run.suite.record()[0], dry_run.suite.record()[-1]
    assert (header["world_size"], header["dry_run"], footer["whole"]) == (1024, True, False)
    assert set(dry_run.suite.verdicts().values()) == {"incomplete"}
    assert {line["outcome"] for line in dry_run.suite.cases()} == {"not run", "not offered"}
    assert dry_run.details()["before-4"] == BUILT.format("1,024")
    assert set(dry_run.details().values()) >= {BUILT.format(size) for size in ("512", "1,024")}


@pytest.mark.parametrize(
    ("name", "outcome", "detail"),
    [
        ("RaisesAtAttachment", "fails", "KeyError: {}"),
        ("RefusesAtAttachment", "refuses", "RuntimeError: not under a wrapper"),
        ("ChangesAndRefuses", "refuses", "RuntimeError: not under a wrapper"),
    ],
)
def test_an_error_in_a_dry_run_is_told(dry_run: DryRun, name: str, outcome: str, detail: str) -> None:
    """Wherever it is raised, and whatever values were there before: attached before wrapping, or after a first step."""
    result = dry_run(64, f"--implementation=hostile:{name}", "-k", "equality and (2 or 3)")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert {line["outcome"] for line in dry_run.suite.cases()} == {outcome}
    for case, told in dry_run.details().items():
        assert detail.format(32 if case.endswith("2") else 48) in told
    assert dry_run.suite.verdicts() == {f"hostile:{name}": "not conformant"}
    assert "Ranks(32" in dry_run.suite.cases()[0]["plan"]


def test_a_dry_run_says_what_it_does_not_build(dry_run: DryRun) -> None:
    result = dry_run(64, "--implementation=hostile:Sound", "-k", "ddp and (early_step or properties)")
    assert result.ret == 0
    assert set(dry_run.details().values()) == {
        "dry run: this is no plan that grows with the number of ranks, and nothing was run"
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("0",), "'0' is no number of ranks; give one such as 1024"),
        (("64", "--dry-run", "1024"), "--dry-run is for one number of ranks; run the command once for each"),
        (("64", "--implementation=reference", "--conformance-repro=out"), "a dry run writes no scripts; leave it out"),
    ],
)
def test_a_dry_run_rejects(pytester: pytest.Pytester, arguments: tuple[str, ...], message: str) -> None:
    command = [sys.executable, "-m", "inbackward_conformance", "distributed", "--dry-run"]
    result = pytester.run(*command, *arguments)
    assert result.ret != 0
    result.stderr.fnmatch_lines([f"*{message}"])


def test_help_says_what_a_dry_run_is(pytester: pytest.Pytester) -> None:
    result = pytester.run(sys.executable, "-m", "inbackward_conformance", "distributed", "--help")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*--dry-run RANKS*"])


def test_without_torchrun_there_is_a_remedy(pytester: pytest.Pytester) -> None:
    result = pytester.runpython_c("import sys; from inbackward_conformance.__main__ import main; main(['distributed'])")
    result.stderr.fnmatch_lines(["*there are no ranks here; start them: torchrun --nproc-per-node 4 *"])
