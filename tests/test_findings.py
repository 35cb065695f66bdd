"""Findings: each expected failure that ships is explained, and each explanation has a script that shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from conftest import Suite
from inbackward_conformance.findings.choose import is_as_shown
from inbackward_conformance.findings.pages import INDEX, index, page
from inbackward_conformance.findings.shown import ShownFindings, lines_of_code, read_shown
from inbackward_conformance.report.expectations_file import BadExpectations, read_expectations
from inbackward_conformance.report.expected import SHIPPED

FOLDER = Path(__file__).parents[1] / "docs" / "findings"
SHIPPED_FILES = {path.stem: read_expectations(path) for path in sorted(SHIPPED.glob("*.toml"))}
PAGE = "mutants.of_structure_RegisterHookIgnored"
UNHOOKED = "mutants.of_structure:RegisterHookIgnored"

FINDING = """\
[[finding]]
id = "always-hooked"
title = "`register_hook=False` is ignored"
what = "A hook is registered whatever the argument says."
who = "Whoever steps some parameters by hand: they are stepped twice."
link = "https://example.org/mutants"
"""
ENTRY = '[[expected]]\nrequirement = "no_hook/{name}"\ncause = "parameter {param!r} differs"\nfinding = "{finding}"\n'
EXPLAINED = FINDING + "".join(
    ENTRY.format(name=name, param=param, finding="always-hooked")
    for name, param in [
        ("backward_steps_nothing", "0.weight"),
        ("stepped_by_hand", "0.weight"),
        ("beside_hooked_parameters", "2.weight"),
    ]
)


@pytest.fixture(scope="module")
def shown() -> list[ShownFindings]:
    return read_shown(FOLDER)


@pytest.mark.parametrize("name", SHIPPED_FILES)
def test_a_finding_explains_each_failure_and_has_a_script(name: str, shown: list[ShownFindings]) -> None:
    file = SHIPPED_FILES[name]
    assert file.unexplained == []
    (of,) = (each for each in shown if each.implementation == name)
    of_file = [finding.id for finding in file.findings]
    assert sorted([*of.elsewhere, *(each.id for each in of.findings)]) == sorted(of_file)
    assert {path.stem for path in (FOLDER / name).glob("*.py")} == {each.id for each in of.findings}


def test_the_pages_are_up_to_date(shown: list[ShownFindings]) -> None:
    """`python -m inbackward_conformance findings -o docs/findings` makes them anew."""
    for of in shown:
        expected = page(of, SHIPPED_FILES[of.implementation], FOLDER)
        assert (FOLDER / f"{of.name}.md").read_text(encoding="utf-8") == expected
    assert (FOLDER / INDEX).read_text(encoding="utf-8") == index(shown, FOLDER)


def test_scripts_are_short(shown: list[ShownFindings]) -> None:
    lengths = [
        lines_of_code(of.script(FOLDER, each).read_text(encoding="utf-8")) for of in shown for each in of.findings
    ]
    assert len(lengths) >= 40
    assert median(lengths) < 50
    assert max(lengths) <= 90


def test_no_folder_of_the_machine_that_ran_it_is_kept() -> None:
    texts = [path.read_text(encoding="utf-8") for path in FOLDER.rglob("*") if path.is_file()]
    assert [line for text in texts for line in text.splitlines() if "pytest-of" in line] == []


def test_lines_of_code() -> None:
    source = '"""Two\nlines."""\n\nimport os  # one\n\n# none\n\ndef f(\n    x,\n):\n    """None."""\n    return "a"\n'
    assert lines_of_code(source) == 5


def test_an_author_makes_pages_of_their_own(suite: Suite, pytester: pytest.Pytester) -> None:
    known, folder = suite.report.parent / "known.toml", suite.report.parent / "out"
    known.write_text(f"implementation = {UNHOOKED!r}\n{EXPLAINED}", encoding="utf-8")
    assert suite.run("--implementation", UNHOOKED, "--expected", str(known)).ret == pytest.ExitCode.OK
    command = [sys.executable, "-m", "inbackward_conformance", "findings", str(suite.report)]
    command += ["--expected", str(known), "-o", str(folder)]
    done = pytester.run(*command)
    assert done.ret == 0
    assert done.outlines[-1].startswith(f"{UNHOOKED}: always-hooked: ")
    (of,) = read_shown(folder)
    (finding,) = of.findings
    script = of.script(folder, finding)
    assert "RegisterHookIgnored" in script.read_text(encoding="utf-8")
    text = (folder / f"{PAGE}.md").read_text(encoding="utf-8")
    assert "## `register_hook=False` is ignored\n" in text
    assert "It also breaks `no_hook/" in text
    assert script.read_text(encoding="utf-8").rstrip() in text
    assert f"[`register_hook=False` is ignored]({PAGE}.md#register_hookfalse-is-ignored)" in (folder / INDEX).read_text(
        encoding="utf-8"
    )
    assert is_as_shown(finding, of.device, script, sys.executable).startswith("ends with ModuleNotFoundError")

    unseen = ENTRY.format(name="hooked_and_unhooked", param="x", finding="always-hooked")
    known.write_text(f"implementation = {UNHOOKED!r}\n{FINDING}{unseen}", encoding="utf-8")
    done = pytester.run(*command)
    assert done.ret == 1
    assert done.outlines[-1].startswith("missing: ")


def test_a_script_that_shows_nothing_is_told(shown: list[ShownFindings], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('fine')")
    finding = shown[-1].findings[0]
    assert is_as_shown(finding, "cpu", script, sys.executable).startswith("ends without an error, the record says ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (EXPLAINED.replace("always-hooked", "Always hooked"), "an id is words in lower case"),
        (EXPLAINED.replace('what = "A hook is registered whatever the argument says."', 'what = " "'), "what is empty"),
        (EXPLAINED.replace('finding = "always-hooked"', 'finding = "other"'), "the file has no finding 'other'"),
        (FINDING, "it explains no expected failure"),
        (FINDING + EXPLAINED, "there are two of this id"),
        (EXPLAINED.replace('title = "', 'titel = "'), "unexpected keyword argument 'titel'.* tables with id, title"),
    ],
    ids=["id", "empty", "unknown", "unused", "twice", "misspelled"],
)
def test_a_bad_finding_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "known.toml"
    path.write_text(f"implementation = 'x'\n{text}", encoding="utf-8")
    with pytest.raises(BadExpectations, match=message):
        read_expectations(path)


def test_the_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inbackward_conformance", "findings", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "an entry for each [[finding]] of its expected failures" in done.stdout
