"""Expected failures: pinned to their causes, never a way to be green by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Suite
from inbackward_conformance.adapters.find import known_implementations
from inbackward_conformance.report.expected import BadExpectations, load_expectations

HOOKED = """
[[expected]]
requirement = "no_hook/backward_steps_nothing"
cause = "parameter '0.weight' differs"
link = "https://example.org/1"

[[expected]]
requirement = "no_hook/stepped_by_hand"
cause = "parameter '0.weight' differs"
link = "https://example.org/2"

[[expected]]
requirement = "no_hook/beside_hooked_parameters"
cause = "parameter '2.weight' differs"
link = "https://example.org/3"
"""


@pytest.fixture(autouse=True)
def importable_mutants(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath / "tests"))


def run_with(suite: Suite, path: Path, name: str, entries: str) -> pytest.RunResult:
    path.write_text(f"implementation = {name!r}\n{entries}", encoding="utf-8")
    return suite.run("--implementation", name, "--expected", str(path))


def test_expected_failures_leave_the_exit_status_alone_and_the_verdict_true(suite: Suite, tmp_path: Path) -> None:
    name = "mutants.of_structure:RegisterHookIgnored"
    result = run_with(suite, tmp_path / "expected.toml", name, HOOKED)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=2, xfailed=3)
    assert suite.verdicts() == {name: "not conformant"}
    assert {line["requirement"]: line["expected"] for line in suite.record() if line["kind"] == "requirement"} == {
        "no_hook/backward_steps_nothing": True,
        "no_hook/stepped_by_hand": True,
        "no_hook/beside_hooked_parameters": True,
        "no_hook/hooked_and_unhooked": False,
    }


def test_another_cause_is_a_failure(suite: Suite, tmp_path: Path) -> None:
    other = HOOKED.replace("parameter '2.weight' differs", "'2.weight'.grad is left over")
    result = run_with(suite, tmp_path / "expected.toml", "mutants.of_structure:RegisterHookIgnored", other)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["=* 2 passed, 2 xfailed, 1 diverges in *"])


def test_a_stale_entry_fails_the_run(suite: Suite, tmp_path: Path) -> None:
    result = run_with(suite, tmp_path / "expected.toml", "mutants.naive:Naive", HOOKED)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["stale expected failure: mutants.naive:Naive: no_hook/stepped_by_hand no longer fails *; remove the entry"]
    )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[[expected]]\nrequirement = 'no_hook/none'\ncause = 'x'\nlink = ''", "no_hook/none: no such requirement"),
        ("[[expected]]\nrequirement = 'no_hook/stepped_by_hand'\ncause = ''\nlink = ''", "the cause is empty"),
        (2 * "[[expected]]\nrequirement = 'no_hook/stepped_by_hand'\ncause = 'x'\nlink = ''\n", "listed twice"),
        ("[[expected]]\nrequirement = 'no_hook/stepped_by_hand'\ncause = 'x'", "missing 1 required .* 'link'"),
        ("[[expected]]\nrequirement = 'no_hook/stepped_by_hand'\ncause = 'x'\nlink = ''\noutcome = 'odd'", "'odd'"),
        ("[[expected]]\nrequirement = 'no_hook/stepped_by_hand'\ncause = 3\nlink = ''", "every value is text"),
        ("not toml", "Give `implementation` and"),
    ],
    ids=["unknown", "no cause", "duplicate", "no link", "unknown outcome", "number", "no toml"],
)
def test_a_bad_file_is_refused(tmp_path: Path, entries: str, message: str) -> None:
    path = tmp_path / "expected.toml"
    path.write_text(f"implementation = 'x'\n{entries}", encoding="utf-8")
    with pytest.raises(BadExpectations, match=message):
        load_expectations(["x"], [path], "cpu")


def test_files_that_would_be_passed_over_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "expected.toml"
    path.write_text("implementation = 'y'", encoding="utf-8")
    with pytest.raises(BadExpectations, match="they are of 'y', which is not tested here; tested: x"):
        load_expectations(["x"], [path], "cpu")
    with pytest.raises(BadExpectations, match="another file is of 'y' too; make it one"):
        load_expectations(["y"], [path, path], "cpu")


def test_a_crash_is_expected_only_by_name(suite: Suite, tmp_path: Path, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        dies="""
        import os, mutants.naive

        class Dies(mutants.naive.Naive):
            def step(self, optimizer, param):
                if len(param.optimizers) == 2:
                    os._exit(3)
                super().step(optimizer, param)
        """
    )
    path = tmp_path / "expected.toml"
    entry = "implementation = 'dies:Dies'\n[[expected]]\nrequirement = 'no_hook/hooked_and_unhooked'\n"
    path.write_text(entry + "cause = 'crashed'\nlink = ''\n", encoding="utf-8")
    result = suite.run("--implementation=dies:Dies", "-n", "1", "--expected", str(path))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    path.write_text(entry + "cause = 'crashed'\nlink = ''\noutcome = 'crashes'\n", encoding="utf-8")
    result = suite.run("--implementation=dies:Dies", "-n", "1", "--expected", str(path))
    assert result.ret == pytest.ExitCode.OK
    assert suite.verdicts() == {"dies:Dies": "not conformant"}


def test_a_bad_file_is_one_line_of_a_run(suite: Suite) -> None:
    result = suite.run("--implementation=torch", "--expected=nowhere.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: expected failures nowhere.toml: cannot be read (*); check the path"])


def test_shipped_files_are_used_by_default() -> None:
    shipped = load_expectations(known_implementations(), [], "cpu")
    assert shipped["torch"]
    assert [entry.requirement for entry in shipped["reference"]] == ["hazards/checkpoint_of_detached_use"]


def test_an_entry_may_be_for_one_kind_of_device(tmp_path: Path) -> None:
    path = tmp_path / "expected.toml"
    path.write_text(f"implementation = 'x'\n{HOOKED}device = 'cpu'\n", encoding="utf-8")
    expected = {device: load_expectations(["x"], [path], device)["x"] for device in ("cpu", "cuda:1")}
    assert [entry.requirement for entry in expected["cpu"] if entry not in expected["cuda:1"]] == [
        "no_hook/beside_hooked_parameters"
    ]
    assert len(expected["cuda:1"]) == 2
