"""Expected failures: pinned to their causes, never a way to be green by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Suite
from inbackward_conformance.adapters.find import known_implementations
from inbackward_conformance.report import expected
from inbackward_conformance.report.expectations_file import BadExpectations
from inbackward_conformance.report.expected import SHIPPED, load_expectations

HOOKED = "\n".join(
    f'[[expected]]\nrequirement = "no_hook/{name}"\ncause = "parameter {param!r} differs"\nlink = "https://example.org"\n'
    for name, param in [
        ("backward_steps_nothing", "0.weight"),
        ("stepped_by_hand", "0.weight"),
        ("beside_hooked_parameters", "2.weight"),
    ]
)
ENTRY = "[[expected]]\nrequirement = 'no_hook/stepped_by_hand'\ncause = 'x'\nlink = 'https://example.org'\n"
UNHOOKED = "mutants.of_structure:RegisterHookIgnored"


def run_with(suite: Suite, name: str, entries: str, *arguments: str) -> pytest.RunResult:
    path = suite.report.parent / "expected.toml"
    path.write_text(f"implementation = {name!r}\n{entries}", encoding="utf-8")
    return suite.run("--implementation", name, "--expected", str(path), *arguments)


def test_expected_failures_leave_the_exit_status_alone_and_the_verdict_true(suite: Suite) -> None:
    result = run_with(suite, UNHOOKED, HOOKED)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=2, xfailed=3)
    assert suite.verdicts() == {UNHOOKED: "not conformant"}
    assert {line["requirement"]: line["expected"] for line in suite.record() if line["kind"] == "requirement"} == {
        "no_hook/backward_steps_nothing": True,
        "no_hook/stepped_by_hand": True,
        "no_hook/beside_hooked_parameters": True,
        "no_hook/hooked_and_unhooked": False,
    }


def test_another_cause_is_a_failure(suite: Suite) -> None:
    other = HOOKED.replace("parameter '2.weight' differs", "'2.weight'.grad is left over")
    result = run_with(suite, UNHOOKED, other)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["=* 2 passed, 2 xfailed, 1 diverges in *"])


def test_a_stale_entry_fails_the_run(suite: Suite) -> None:
    result = run_with(suite, "mutants.naive:Naive", HOOKED)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["stale expected failure: mutants.naive:Naive: no_hook/stepped_by_hand no longer fails *; remove the entry"]
    )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (ENTRY.replace("stepped_by_hand", "none"), "no_hook/none: no such requirement"),
        (ENTRY.replace("'x'", "''"), "the cause is empty"),
        (2 * ENTRY, "listed twice"),
        (ENTRY.replace("link = 'https://example.org'", ""), "say where it is tracked by a link, or name the finding"),
        (f"{ENTRY}outcome = 'odd'", "'odd'"),
        (ENTRY.replace("'x'", "3"), "every value is text"),
        (f"{ENTRY}torch = 'new'", "no_hook/stepped_by_hand: torch = 'new': write versions as in '>=2.12,<2.14'"),
        ("not toml", "Give `implementation` and"),
    ],
    ids=["unknown", "no cause", "duplicate", "no link", "unknown outcome", "number", "no version", "no toml"],
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


def test_a_crash_is_expected_only_by_name(suite: Suite) -> None:
    entry = (
        "[[expected]]\nrequirement = 'no_hook/hooked_and_unhooked'\ncause = 'crashed'\nlink = 'https://example.org'\n"
    )
    assert run_with(suite, "hostile:Dies", entry, "-n", "1").ret == pytest.ExitCode.TESTS_FAILED
    assert run_with(suite, "hostile:Dies", entry + "outcome = 'crashes'", "-n", "1").ret == pytest.ExitCode.OK
    assert suite.verdicts() == {"hostile:Dies": "not conformant"}


def test_a_bad_file_is_one_line_of_a_run(suite: Suite) -> None:
    result = suite.run("--implementation=torch", "--expected=nowhere.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: expected failures nowhere.toml: cannot be read (*); check the path"])


def test_shipped_files_are_used_by_default() -> None:
    shipped = load_expectations(known_implementations(), [], "cpu")
    on_cuda = load_expectations(known_implementations(), [], "cuda")
    with_entries = {name for of in (shipped, on_cuda) for name, entries in of.items() if entries}
    assert {path.stem for path in SHIPPED.glob("*.toml")} == with_entries
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


def test_an_entry_for_other_versions_of_torch_covers_nothing_and_is_not_stale(suite: Suite) -> None:
    kept = ENTRY.replace("stepped_by_hand", "hooked_and_unhooked")
    result = run_with(suite, UNHOOKED, f"{HOOKED}torch = '<1.0'\n{kept}torch = '<1.0'")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["=* 2 passed, 2 xfailed, 1 diverges in *"])
    result.stdout.no_fnmatch_line("stale expected failure*")


@pytest.mark.parametrize(
    ("installed", "specifier", "holds"),
    [
        ("2.13.0+cpu", "", True),
        ("2.13.0+cpu", ">=2.13", True),
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.13.1", "==2.13.0", False),
        ("2.14.0.dev20261101+cu130", ">=2.14", True),
        ("2.14.0.dev20261101+cu130", "<2.14", False),
        ("2.14.0a0+git1234567", ">=2.12,<2.14", False),
        ("2.14.0rc1", "==2.14.0", True),
    ],
)
def test_an_entry_may_be_for_some_versions_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str, specifier: str, holds: bool
) -> None:
    """A nightly build, or a candidate, counts as the release that it comes before."""
    path = tmp_path / "expected.toml"
    path.write_text(f"implementation = 'x'\n{ENTRY}torch = {specifier!r}\n", encoding="utf-8")
    monkeypatch.setattr(expected, "version", {"torch": installed}.__getitem__)
    assert len(load_expectations(["x"], [path], "cpu")["x"]) == holds
