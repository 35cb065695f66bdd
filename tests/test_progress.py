"""The line that shows where a run is: on a terminal, and nowhere else."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "--implementation", "torch"]
CHAPTER = ["--pyargs", "inbackward_conformance.requirements.test_sharing"]


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize(
    ("options", "environment", "shown"),
    [([], {}, True), (["-n", "1"], {}, True), ([], {"CI": "true"}, False), (["-v", "-v"], {}, False)],
    ids=["terminal", "workers", "CI", "verbose"],
)
def test_a_terminal_shows_where_a_run_is(
    options: list[str], environment: dict[str, str], shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    printed = on_a_terminal([*COMMAND, *CHAPTER, *options])
    lines = re.findall(r"\r(\d+) of 11.*?  torch  (sharing/\w+)", printed)
    assert bool(lines) is shown
    assert [int(number) for number, _ in lines] == sorted(int(number) for number, _ in lines)
    assert "torch: not conformant" in printed
    assert bool(re.search(r"^[.x]{2}", printed, re.MULTILINE)) is (environment != {})


def on_a_terminal(command: list[str]) -> str:
    """Run a command whose output is a terminal, and return what it prints there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    while True:
        try:
            read = os.read(ours, 4096)
        except OSError:  # Linux says so at the end
            break
        if not read:
            break
        printed += read
    os.close(ours)
    process.wait()
    return re.sub(r"\x1b\[[0-9;]*m", "", printed.decode())
