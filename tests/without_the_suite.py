"""Runs scripts where neither the suite nor pytest can be imported, each in a process of its own.

    python without_the_suite.py [--with PACKAGE]… SCRIPT …

It prints a line of JSON for each: `[exit status, output]`. Torch is loaded once, and scripts run in forks of that.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path

HIDDEN = {"inbackward", "inbackward_conformance", "pytest", "mutants"}

IN_RANKS = """
import sys
sys.path.append({folder!r})
from without_the_suite import Hide
sys.path.pop()
sys.meta_path.insert(0, Hide({hidden!r}))
"""
"""What hides the packages from the processes that a script starts."""


class Hide:
    """Takes packages away, wherever they are installed."""

    def __init__(self, hidden: set[str]) -> None:
        self._hidden = hidden

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self._hidden:
            msg = f"{name} is not here"
            raise ModuleNotFoundError(msg)


def run(path: str) -> int:
    """Run a script as `python PATH` does, and return its exit status."""
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code)
        return int(bool(error.code))
    except BaseException:  # noqa: BLE001 (the interpreter prints whatever it is)
        traceback.print_exc(file=sys.stdout)
        return 1
    return 0


def main(paths: list[str]) -> None:
    while paths[0] == "--with":
        HIDDEN.remove(paths[1])
        paths = paths[2:]
    sys.meta_path.insert(0, Hide(HIDDEN))
    with tempfile.TemporaryDirectory() as folder:
        text = IN_RANKS.format(folder=str(Path(__file__).parent), hidden=HIDDEN)
        Path(folder, "sitecustomize.py").write_text(text, encoding="utf-8")
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
        run_all(paths)


def run_all(paths: list[str]) -> None:
    """Print what came of each script."""
    import torch.distributed.optim  # noqa: PLC0415 (what all scripts need)
    import torch.optim  # noqa: PLC0415

    torch.set_num_threads(1)
    for path in paths:
        with tempfile.TemporaryFile() as output:
            child = os.fork()
            if not child:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                status = run(path)
                sys.stdout.flush()
                os._exit(status)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            output.seek(0)
            print(json.dumps([status, output.read().decode()]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
