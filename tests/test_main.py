"""`python -m inbackward_conformance`, and the documents that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from expecttest import assert_expected_inline

from conftest import Suite
from inbackward_conformance.__main__ import main
from inbackward_conformance.specification import specification

Record = list[dict[str, object]]

RECORD: Record = [
    {"kind": "header", "spec": "1.0"},
    {"kind": "requirement", "implementation": "one", "requirement": "listing/order", "outcome": "fails"},
    {"kind": "requirement", "implementation": "one", "requirement": "equivalence/closure", "outcome": "refuses"},
    {"kind": "requirement", "implementation": "two", "requirement": "listing/order", "outcome": "conforms"},
    {"kind": "footer", "implementations": {"one": {"verdict": "conformant"}, "two": {"verdict": "incomplete"}}},
]


def write(path: Path, lines: list[dict[str, object]]) -> str:
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return str(path)


def test_requirements_are_listed_with_their_levels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(specification())
    assert "MUST   equivalence/closure  may refuse at attachment" in lines
    assert "SHOULD listing/order" in lines
    assert "MUST   lifetime/detached  needs detach" in lines


def test_every_requirement_has_a_text() -> None:
    assert [found.id for found in specification().values() if not found.text] == []


def test_the_committed_specification_is_that_of_the_requirements(
    capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    """If this fails: python -m inbackward_conformance spec > conformance/SPEC.md."""
    main(["spec"])
    committed = (pytestconfig.rootpath / "conformance" / "SPEC.md").read_text(encoding="utf-8")
    assert committed == capsys.readouterr().out


def test_the_specification_is_what_pytest_collects(suite: Suite) -> None:
    """It is read from the source, without importing it; the marks and names are those that pytest sees."""
    for mark, found in {
        "must": {name for name, found in specification().items() if found.level == "MUST"},
        "should": {name for name, found in specification().items() if found.level == "SHOULD"},
        "may_refuse": {name for name, found in specification().items() if found.may_refuse},
    }.items():
        assert suite.collect("-m", mark) | suite.collect("-m", mark, "--distributed") == {
            f"test_{name.partition('/')[0]}.py::test_{name.partition('/')[2]}" for name in found
        }


def test_records_become_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = write(tmp_path / "r.jsonl", RECORD)
    main(["matrix", record])
    assert_expected_inline(
        capsys.readouterr().out,
        """\
| requirement | one | two |
| --- | --- | --- |
| listing/order | fails | conforms |
| equivalence/closure | refuses |  |
| **verdict** | conformant | incomplete |
""",
    )
    main(["matrix", record, "--may-refuse"])
    assert_expected_inline(
        capsys.readouterr().out,
        """\
| requirement | one | two |
| --- | --- | --- |
| equivalence/closure | refuses |  |
""",
    )


def test_a_later_record_replaces_an_earlier_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later: Record = [RECORD[0], RECORD[3], {"kind": "footer", "implementations": {"two": {"verdict": "conformant"}}}]
    earlier: Record = [RECORD[0], RECORD[3] | {"outcome": "fails"}, RECORD[3] | {"requirement": "x/y"}, later[-1]]
    main(["matrix", write(tmp_path / "1.jsonl", earlier), write(tmp_path / "2.jsonl", later)])
    assert "fails" not in (printed := capsys.readouterr().out)
    assert "x/y" not in printed


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (RECORD[:-1], "has no footer, its run did not reach its end; run it again"),
        ([{"no": "kind"}], "not JSON Lines of a conformance run; give what --conformance-report wrote"),
    ],
    ids=["died", "not a record"],
)
def test_what_is_no_record_is_one_line(
    lines: list[dict[str, object]], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["matrix", write(tmp_path / "r.jsonl", lines)])
    assert message in capsys.readouterr().err


def test_the_table_in_the_readme_is_that_of_a_run(
    suite: Suite, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails: nox -s conformance, then put into the README what the command below the table prints."""
    suite.run("--implementation=reference", "--implementation=torch", "-m", "may_refuse", "-n", "2", chapter="")
    capsys.readouterr()
    main(["matrix", str(suite.report), "--may-refuse"])
    assert capsys.readouterr().out in (pytestconfig.rootpath / "README.md").read_text(encoding="utf-8")
