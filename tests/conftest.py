"""Fixtures of the project's own tests."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inbackward_conformance.requirements.conftest import pytest_configure  # noqa: F401 (declares the marks)
from pytest_forks import PytestForks

pytest_plugins = ["pytester"]

collect_ignore = ["browser"]  # `nox -s browser` runs them, and they have a conftest of their own

Record = list[dict[str, Any]]


def read_record(path: Path) -> Record:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Suite:
    """Runs the suite in a folder of its own, as an author of an implementation does."""

    def __init__(self, pytester: pytest.Pytester, forks: PytestForks) -> None:
        self._pytester = pytester
        self._forks = forks
        self.report = pytester.path / "record.jsonl"

    def run(self, *arguments: str, chapter: str = "no_hook") -> pytest.RunResult:
        """Run one chapter, or all, in a process of its own: in ours, pytester would load torch and unload it again."""
        target = f"inbackward_conformance.requirements.test_{chapter}" if chapter else "inbackward_conformance"
        report = ("--conformance-report", str(self.report))
        return self._forks.run(self._pytester, "--pyargs", target, "-p", "no:randomly", *report, *arguments)

    def record(self) -> Record:
        return read_record(self.report)

    def cases(self) -> Record:
        return [line for line in self.record() if line["kind"] == "case"]

    def outcomes(self) -> dict[str, str]:
        return {line["requirement"]: line["outcome"] for line in self.record() if line["kind"] == "requirement"}

    def verdicts(self) -> dict[str, str]:
        footer = self.record()[-1]
        assert footer["kind"] == "footer"
        return {name: counts["verdict"] for name, counts in footer["implementations"].items()}


@pytest.fixture(scope="session")
def forks() -> Iterator[PytestForks]:
    process = PytestForks()
    yield process
    process.close()


@pytest.fixture
def suite(pytester: pytest.Pytester, forks: PytestForks, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Its processes import what this one can: mutants, hostile implementations."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))
    return Suite(pytester, forks)
