"""Runs pytest in forks of one process that has loaded torch, which takes longer than most tests do.

    python pytest_forks.py

Reads a line of JSON for each run: `{"arguments": …, "folder": …, "environment": …, "stdout": …, "stderr": …}`, the last
two paths of files; runs `python -m pytest ARGUMENTS` and prints its exit status.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest


class PytestForks:
    """The process that forks, which starts with the first run."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
        """Run pytest as `pytester.runpytest_subprocess` does, with what this process has in its environment now."""
        if self._process is None:
            # Without PYTHONPATH, so that it knows where this interpreter looks by itself.
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        base = Path(tempfile.mkdtemp(prefix="forked-", dir=pytester.path))
        out, err = base.with_suffix(".out"), base.with_suffix(".err")
        request = {
            "arguments": [f"--basetemp={base}", *arguments],
            "folder": str(Path.cwd()),
            "environment": dict(os.environ),
            "stdout": str(out),
            "stderr": str(err),
        }
        assert self._process.stdin
        assert self._process.stdout
        began = time.perf_counter()
        with suppress(BrokenPipeError):  # it has died: there is no answer
            print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            died = f"the process that forks ended with {self._process.wait()}; the next run starts another"
            self._process = None
            raise RuntimeError(died)
        status = int(answer)
        printed, errors = (path.read_text(encoding="utf-8") for path in (out, err))
        print(printed)
        print(errors, file=sys.stderr)
        duration = time.perf_counter() - began
        known = {int(code) for code in pytest.ExitCode}
        exit_code = pytest.ExitCode(status) if status in known else status
        return pytest.RunResult(exit_code, printed.splitlines(), errors.splitlines(), duration)

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.communicate()


def serve() -> None:
    """Run pytest for each line of standard input."""
    import torch._dynamo  # noqa: PLC0415 (which the first step of an optimizer imports)

    torch.set_num_threads(1)  # no other thread may run in a process that forks
    searched = sys.path[1:]  # the first is this folder
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(searched, **json.loads(line))
            runpy.run_module("pytest", run_name="__main__", alter_sys=True)
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(searched: list[str], arguments: list[str], folder: str, environment: dict[str, str], **files: Any) -> None:
    """Make this process what `python -m pytest ARGUMENTS` is."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for descriptor, path in enumerate((os.devnull, files["stdout"], files["stderr"])):
        os.dup2(os.open(path, flags if descriptor else os.O_RDONLY), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = ["", *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *searched]
    sys.argv = ["pytest", *arguments]


if __name__ == "__main__":
    serve()
