"""What some versions of torch lack, and the table of all versions."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from expecttest import assert_expected_inline

from conftest import Suite
from inbackward_conformance.report.record import CaseRecord, summarize, verdict
from inbackward_conformance.versions import is_installed
from records import case, write_record

TIED = "pipeline/tied_stages"
SHARED = "sharing/used_twice"
OLDER = """
from inbackward_conformance.requirements import conftest

def is_installed(requirement):
    assert requirement == "torch>=2.12"
    return False

conftest.is_installed = is_installed
"""


def lacking(requirement: str, name: str = "", implementation: str = "x") -> CaseRecord:
    return case(implementation, requirement, "not run", name=name, detail="it needs torch >=2.12", not_in_torch=True)


def test_a_requirement_is_judged_by_the_cases_that_torch_can_run() -> None:
    cases = [case("x", TIED, "conforms", name="summed-by-hand"), lacking(TIED, "on-one-rank")]
    (record,) = summarize("x", cases, [], "cpu")
    assert (record.outcome, record.ran, record.applies, record.cases) == ("conforms", True, True, 1)
    assert verdict([record]) == "conformant"


def test_no_verdict_rests_on_a_requirement_that_torch_lacks() -> None:
    missing, kept = summarize("x", [lacking(TIED), case("x", SHARED, "conforms")], [], "cpu")
    assert (missing.requirement, missing.outcome, missing.ran, missing.applies) == (TIED, "not run", False, False)
    assert verdict([missing, kept]) == "conformant"
    assert verdict([missing]) == "incomplete"


def test_a_case_says_which_torch_it_needs(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(older=OLDER)
    result = suite.run(
        "-p", "older", "--distributed", "-k", "tied_stages_accumulated", "--implementation=torch", chapter="pipeline"
    )
    assert result.ret == pytest.ExitCode.OK
    found = {each["case"]: each for each in suite.cases()}
    assert found["on-one-rank"]["not_in_torch"]
    assert not found["summed-by-hand"]["not_in_torch"]
    assert found["on-one-rank"]["detail"].startswith("it needs torch >=2.12, and this is torch ")


@pytest.mark.parametrize(
    ("requirement", "expected"), [("torch>=2.10", True), ("torch<2.10", False), ("no-such-library>=1", False)]
)
def test_what_is_installed(requirement: str, expected: bool) -> None:
    assert is_installed(requirement) is expected


def test_each_version_has_its_constraints(pytestconfig: pytest.Config) -> None:
    root = pytestconfig.rootpath
    listed = re.search(r"TORCH_VERSIONS = (\(.*\))", (root / "noxfile.py").read_text(encoding="utf-8"))
    assert listed
    names = {path.stem.removeprefix("constraints-torch-") for path in root.glob("ci/constraints-torch-*.txt")}
    assert names == {*ast.literal_eval(listed[1]), "nightly"}
    for name in names - {"nightly"}:
        assert f"torch=={name}\n" in (root / "ci" / f"constraints-torch-{name}.txt").read_text(encoding="utf-8")


@pytest.fixture
def table(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.rootpath / "ci" / "torch_table.py")


def test_the_table(tmp_path: Path, table: str) -> None:
    """Of three versions: what one lacked, what changes, and who is not conformant."""
    kept = case("reference", SHARED, "conforms")
    early = [kept, lacking(TIED, implementation="reference"), case("torch", SHARED, "diverges")]
    later = [kept, case("reference", TIED, "conforms"), case("torch", SHARED, "conforms")]
    broken = [kept, case("reference", TIED, "fails")]
    alone = [case("torch", SHARED, "conforms")]
    for version, cases in (("2.9.0", early), ("2.12.0", later), ("2.13.0+cpu", broken), ("2.14.0", alone)):
        path = tmp_path / f"{version}.jsonl"
        write_record(path, *cases, torch=version, python="3.11.7", date="2026-01-02T03:04:05+00:00")
    done = subprocess.run([sys.executable, table, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "torch 2.13.0+cpu: reference is not conformant\n")
    assert_expected_inline(
        done.stdout.partition("\n\n")[2].partition("\n\n")[2],
        """\
| torch | Python | recorded | reference | torch |
|---|---|---|---|---|
| 2.9.0 | 3.11.7 | 2026-01-02 | conformant: 1 of 1 | not conformant: 0 of 1 |
| 2.12.0 | 3.11.7 | 2026-01-02 | conformant: 2 of 2 | conformant: 1 of 1 |
| 2.13.0+cpu | 3.11.7 | 2026-01-02 | not conformant: 1 of 2 | not recorded |
| 2.14.0 | 3.11.7 | 2026-01-02 | not recorded | conformant: 1 of 1 |

## What changes

Requirements with another result than with the version before:

| requirement | implementation | since torch | before | since then |
|---|---|---|---|---|
| `pipeline/tied_stages` | reference | 2.12.0 | not in this torch | kept |
| `pipeline/tied_stages` | reference | 2.13.0+cpu | kept | broken |
| `pipeline/tied_stages` | reference | 2.14.0 | broken | not recorded |
| `sharing/used_twice` | reference | 2.14.0 | kept | not recorded |
| `sharing/used_twice` | torch | 2.12.0 | broken | kept |
| `sharing/used_twice` | torch | 2.13.0+cpu | kept | not recorded |
| `sharing/used_twice` | torch | 2.14.0 | not recorded | kept |
""",
    )


def test_a_record_of_a_run_that_died_is_told(tmp_path: Path, table: str) -> None:
    write_record(tmp_path / "2.13.0-local.jsonl", case("reference", SHARED, "conforms"))
    (tmp_path / "2.12.0-local.jsonl").write_text('{"kind": "header"}\n', encoding="utf-8")
    page = tmp_path / "torch.md"
    done = subprocess.run(
        [sys.executable, table, str(tmp_path), "-o", str(page)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "2.12.0-local.jsonl: has no footer" in done.stderr
    assert "No requirement has another result" in page.read_text(encoding="utf-8")


def test_without_records_the_table_says_how_to_make_them(tmp_path: Path, table: str) -> None:
    done = subprocess.run([sys.executable, table, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (
        1,
        f"{tmp_path}: no complete record there; run nox -s torch_versions\n",
    )
