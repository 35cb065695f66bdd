"""`check_implementation`, which runs the suite from a test."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from inbackward_conformance.report.read_record import BadRecord, read_record
from inbackward_conformance.specification import specification

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inbackward_conformance.report.record import CaseRecord

MAX_LINES = 30


class RunFailed(RuntimeError):
    """Raised when the suite does not run to its end; the message holds the last lines that pytest printed."""


def check_implementation(
    adapter: Any,
    *,
    chapters: Sequence[str] = (),
    distributed: bool = False,
    device: str = "cpu",
    expected: str | os.PathLike[str] | None = None,
    options: Sequence[str] = (),
) -> list[CaseRecord]:
    """Run the suite on an implementation and return the result of each case, in the order in which they ran.

    The suite runs in a subprocess with the import path of this process and without its pytest configuration. CI passes
    if `all(result.passed or result.expected for result in results)`.

    Args:
        adapter: a class or module that can be imported by name, or the name: a registered one,
            `package.module:attribute` or `package.module`.
        chapters: the chapters to run, such as `"sharing"`; all by default.
        distributed: run the distributed chapters instead of the others.
        device: `"cpu"` or `"cuda"`.
        expected: a file of expected failures.
        options: further options for pytest, such as `("-k", "listed_twice")`; a plugin, such as xdist for `-n`, needs
            its `-p` as well.

    Raises:
        TypeError: if `adapter` cannot be imported by name in another process, or a str stands for a sequence.
        ValueError: if a chapter does not exist.
        RunFailed: if pytest cannot use the implementation or an option, or does not run to its end.
    """
    if isinstance(chapters, str) or isinstance(options, str):
        raise TypeError(f"chapters={chapters!r}, options={options!r}: expected sequences of str; write ('sharing',)")
    known = dict.fromkeys(requirement.chapter for requirement in specification().values())
    if unknown := set(chapters) - known.keys():
        raise ValueError(f"no such chapter: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    name = _importable_name(adapter)
    targets = [f"inbackward_conformance.requirements.test_{chapter}" for chapter in chapters]
    with TemporaryDirectory(prefix="inbackward-") as folder:
        report = Path(folder, "record.jsonl")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "inbackward_conformance.plugin"]
        command += ["-p", "no:cacheprovider", "--conformance-report", str(report), "--implementation", name]
        command += ["--device", device, *(["--distributed"] if distributed else [])]
        command += ["--expected", str(Path(expected).resolve())] if expected else []
        command += [*options, "--pyargs", *(targets or ["inbackward_conformance"])]
        completed = subprocess.run(  # noqa: S603 (it is pytest)
            command, cwd=folder, env=_subprocess_environment(), text=True, capture_output=True, check=False
        )
        try:
            return list(read_record(report).cases)
        except BadRecord as error:
            output = "\n".join((completed.stdout + completed.stderr).strip().splitlines()[-MAX_LINES:])
            raise RunFailed(
                f"pytest ended with exit status {completed.returncode} and no complete record:\n{output}"
            ) from error


def _importable_name(adapter: Any) -> str:
    """Return the name by which another process can import `adapter`."""
    if isinstance(adapter, str):
        return adapter
    if inspect.ismodule(adapter):
        return adapter.__name__
    if not inspect.isclass(adapter):
        raise TypeError(
            f"{adapter!r} has no name under which another process can import it; "
            f"pass its class, or 'package.module:attribute'"
        )
    if adapter.__module__ == "__main__" or "<locals>" in adapter.__qualname__:
        raise TypeError(
            f"{adapter.__qualname__} of {adapter.__module__} cannot be imported by another process; "
            f"define it at the top of a module"
        )
    return f"{adapter.__module__}:{adapter.__qualname__}"


def _subprocess_environment() -> dict[str, str]:
    """Return this process's environment with its import path and without its pytest settings."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    paths = [str(Path(path).resolve()) for path in sys.path if not path or Path(path).exists()]
    return environment | {"PYTHONPATH": os.pathsep.join(paths), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
