"""`python -m inbackward_conformance`, and the documents that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.__main__ import main
from inbackward_conformance.specification import specification

if TYPE_CHECKING:
    import pytest

    from conftest import Suite


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
    """If this fails, run what CONTRIBUTING says about a requirement."""
    main(["spec", "--traces", str(pytestconfig.rootpath / "tests" / "mutants" / "traces.json")])
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


def test_the_table_in_the_readme_is_that_of_a_run(
    suite: Suite, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails: nox -s conformance, then put into the README what the command below the table prints."""
    suite.run("--implementation=reference", "--implementation=torch", "-m", "may_refuse", "-n", "2", chapter="")
    capsys.readouterr()
    main(["matrix", str(suite.report), "--may-refuse"])
    assert capsys.readouterr().out in (pytestconfig.rootpath / "README.md").read_text(encoding="utf-8")
