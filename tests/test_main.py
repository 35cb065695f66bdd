"""`python -m inbackward_conformance`, and the documents that it writes."""

from __future__ import annotations

import re

import pytest

from conftest import Suite
from inbackward_conformance.__main__ import main
from inbackward_conformance.specification import specification


def test_requirements_are_listed_with_their_levels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(specification())
    assert "MUST   equivalence/closure  may refuse at attachment" in lines
    assert "SHOULD listing/order" in lines
    assert "MUST   lifetime/detached  needs detach" in lines


def test_every_requirement_has_a_text() -> None:
    assert [name for name, requirement in specification().items() if not requirement.text] == []


def test_the_committed_specification_is_that_of_the_requirements(
    capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    """If this fails, run what CONTRIBUTING says about a requirement."""
    main(["spec", "--traces", str(pytestconfig.rootpath / "tests" / "mutants" / "traces.json")])
    committed = (pytestconfig.rootpath / "conformance" / "SPEC.md").read_text(encoding="utf-8")
    assert committed == capsys.readouterr().out


@pytest.mark.parametrize("chapters", [(), ("--distributed",)], ids=["local", "distributed"])
def test_pytest_collects_the_specification(suite: Suite, chapters: tuple[str, ...]) -> None:
    """It is read from the source, without importing it; `--distributed` chooses the chapters that need ranks."""
    of_the_run = [each for each in specification().values() if each.is_distributed is bool(chapters)]
    for mark, promised in {
        "must": {each.id for each in of_the_run if each.level == "MUST"},
        "should": {each.id for each in of_the_run if each.level == "SHOULD"},
        "may_refuse": {each.id for each in of_the_run if each.may_refuse},
    }.items():
        options = ("--implementation=torch", "--collect-only", "-q", "-m", mark, *chapters)
        printed = "\n".join(suite.run(*options, chapter="").outlines)
        assert {"/".join(names) for names in re.findall(r"test_(\w+)\.py::test_(\w+)", printed)} == promised


def test_the_table_of_refusals_is_that_of_a_run(
    suite: Suite, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails: nox -s conformance, then put into impl/README.md what the command below its table prints."""
    names = ("reference", "reference-handed", "torch")
    suite.run(*(f"--implementation={name}" for name in names), "-m", "may_refuse", "-n", "2", chapter="")
    capsys.readouterr()
    main(["matrix", str(suite.report), "--may-refuse"])
    assert capsys.readouterr().out in (pytestconfig.rootpath / "impl" / "README.md").read_text(encoding="utf-8")
