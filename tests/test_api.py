"""`check_implementation`, from a test file of one's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import mutants.naive
from inbackward_conformance import RunFailed, check_implementation
from mutants.naive import Naive

TEST_FILE = """
from inbackward_conformance import check_implementation
from mutants.naive import Naive

class Mine(Naive):
    pass

def test_mine():
    for result in check_implementation(Mine, chapters=["no_hook"]):
        assert result.passed, result
"""


def test_in_a_test_file(pytester: pytest.Pytester) -> None:
    """The class stands beside the test; the configuration of its project is not the suite's."""
    tests = str(Path(__file__).parent)
    pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\naddopts = '-k mine'\npythonpath = [{tests!r}]")
    pytester.makepyfile(test_mine=TEST_FILE)
    pytester.runpytest_subprocess("-p", "no:randomly").assert_outcomes(passed=1)


def test_results() -> None:
    """One result a case; a failure says what it is on one line."""
    results = check_implementation(Naive, chapters=["sharing"], options=("-k", "two_names"))
    assert {result.requirement for result in results} == {"sharing/two_names"}
    (failed, *_) = check_implementation("torch", chapters=["sharing"], options=("-k", "listed_twice_with_state"))
    assert not failed.passed
    assert failed.expected
    assert re.match(r"sharing/listed_twice_with_state\[.*\] diverges: ", str(failed))


def test_expected_failures(tmp_path: Path) -> None:
    """A file of them is looked for from here."""
    known = tmp_path / "known.toml"
    known.write_text('implementation = "torch"\n')
    results = check_implementation("torch", chapters=["sharing"], expected=known)
    assert any(not result.passed and not result.expected for result in results)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (Naive(), "pass its class, or 'package.module:attribute'"),
        (type("Local", (), {"__qualname__": "f.<locals>.Local"}), "define it at the top of a module"),
    ],
    ids=["instance", "local"],
)
def test_what_no_other_process_can_import(adapter: Any, message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        check_implementation(adapter)


def test_unknown_chapter() -> None:
    with pytest.raises(ValueError, match="no such chapter: no_such; there are accumulation, architectures, "):
        check_implementation(Naive, chapters=["no_such"])


def test_a_run_that_fails() -> None:
    """A module without `apply` is no implementation."""
    with pytest.raises(RunFailed, match=r"exit status 4 .*\n(.*\n)*.*has no `apply`"):
        check_implementation(mutants.naive)
