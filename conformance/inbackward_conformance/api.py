"""`check_implementation`: a run of the suite as one call, for a test file of one's own."""

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

ENOUGH_LINES = 30


class RunFailed(RuntimeError):
    """The suite could not be run, or did not come to its end; the message holds what pytest printed last."""


def check_implementation(
    adapter: Any,
    *,
    chapters: Sequence[str] = (),
    distributed: bool = False,
    device: str = "cpu",
    expected: str | os.PathLike[str] | None = None,
    options: Sequence[str] = (),
) -> list[CaseRecord]:
    """Run the suite on an implementation and return what each case came to, in the order in which they ran.

    The suite runs in a process of its own, with the import path of this one and none of its pytest configuration. What
    it does not print is the verdict: `all(result.passed or result.expected for result in results)` is that of CI.

    Args:
        adapter: a class or a module that can be imported by its name, or the name itself: as registered,
            `package.module:attribute` or `package.module`.
        chapters: the chapters to run, such as `"sharing"`; all by default.
        distributed: run the chapters that need several processes, instead of the others.
        device: `"cpu"` or `"cuda"`.
        expected: a file of expected failures.
        options: further options for pytest, such as `("-k", "listed_twice")`; plugins of yours, or xdist's `-n`, need
            their `-p` as well.

    Raises:
        TypeError: `adapter` cannot be found by a name, in another process.
        ValueError: there is no such chapter.
        RunFailed: pytest cannot use the implementation or an option, or did not come to its end.
    """
    unknown = set(chapters) - {requirement.chapter for requirement in specification().values()}
    if unknown:
        known = ", ".join(dict.fromkeys(requirement.chapter for requirement in specification().values()))
        raise ValueError(f"no such chapter: {', '.join(sorted(unknown))}; there are {known}")
    name = _name_of(adapter)
    targets = [f"inbackward_conformance.requirements.test_{chapter}" for chapter in chapters]
    with TemporaryDirectory(prefix="inbackward-") as folder:
        report = Path(folder, "record.jsonl")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "inbackward_conformance.plugin"]
        command += ["-p", "no:cacheprovider", "--conformance-report", str(report), "--implementation", name]
        command += ["--device", device, *(["--distributed"] if distributed else [])]
        command += ["--expected", str(Path(expected).resolve())] if expected else []
        command += [*options, "--pyargs", *(targets or ["inbackward_conformance"])]
        done = subprocess.run(  # noqa: S603 (it is pytest)
            command, cwd=folder, env=_environment(), text=True, capture_output=True, check=False
        )
        try:
            return list(read_record(report).cases)
        except BadRecord as error:
            told = "\n".join((done.stdout + done.stderr).strip().splitlines()[-ENOUGH_LINES:])
            raise RunFailed(
                f"pytest ended with exit status {done.returncode} and no complete record:\n{told}"
            ) from error


def _name_of(adapter: Any) -> str:
    """Return the name under which another process finds `adapter`."""
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


def _environment() -> dict[str, str]:
    """Return this process's environment with its import path, and without what it tells its own pytest."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    paths = [str(Path(path).resolve()) for path in sys.path if not path or Path(path).exists()]
    return environment | {"PYTHONPATH": os.pathsep.join(paths), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
