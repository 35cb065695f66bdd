"""The pages of the documentation: what they tell the reader to do, what they show, and what is generated for them."""

from __future__ import annotations

import json
import lzma
import os
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from docs.draw_memory import THEMES, count_all, draw, table
from docs.site.assemble import assemble
from docs.site.check_links import dead_links
from docs.site.links import NoSuchFile, anchor_of, link_pages, link_requirements
from docs.site.results import NO_RECORDS

import inbackward
import inbackward_conformance
from docs_blocks import DOCS, follow
from inbackward_conformance.outcome import Level
from inbackward_conformance.specification import specification
from pytest_forks import PytestForks
from records import case, write_record

ROOT = DOCS.parent


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside other tests, two threads take four times as long."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def reader(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """The folder of a reader who follows a page: its modules are found, and nothing of our tests."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(pytester.path), str(ROOT / "impl"), str(ROOT / "conformance")])
    )
    return pytester


def test_get_started(reader: pytest.Pytester, forks: PytestForks) -> None:
    *_, chapter = follow("get-started.md", reader, forks, leave_out="pip install|-n 2")
    chapter.stdout.fnmatch_lines("mine: not conformant *")


def test_tutorial(reader: pytest.Pytester, forks: PytestForks) -> None:
    results = follow("tutorial.md", reader, forks, leave_out="pip install")
    assert [result.ret for result in results] == [1, 1, 1, 0, 1, 0]


def test_reading_a_failure(reader: pytest.Pytester, forks: PytestForks) -> None:
    follow("failures.md", reader, forks, leave_out="pip install")
    lines = map(json.loads, (reader.path / "record.jsonl").read_text(encoding="utf-8").splitlines())
    (failed,) = (line for line in lines if line["kind"] == "case")
    page = (DOCS / "failures.md").read_text(encoding="utf-8")
    keys = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page.partition("| key |")[2].partition("\n\n")[0], re.MULTILINE)
    assert {key.strip("`") for row in keys for key in row.split(", ")} < failed.keys()
    assert failed["difference"] == {"compared": "parameters", "event": 4, "refusal": "", "never_stopped": False}
    events = [failed["plan"].index(name) for name in ("StartSchedule", "Backward", "StepSchedules")]
    assert events == sorted(events)


@pytest.mark.skipif(not version("torch").startswith("2.13."), reason="counted with torch 2.13")
def test_the_figure_of_memory_is_up_to_date(tmp_path: Path) -> None:
    """`python -m docs.draw_memory` draws the figure, and prints the table of the page."""
    steps = count_all()
    assert table(steps) in (DOCS / "why.md").read_text(encoding="utf-8")
    draw(tmp_path, steps)
    for theme in THEMES:
        drawn, kept = (folder / f"memory-{theme}.svg" for folder in (tmp_path, DOCS))
        assert drawn.read_text(encoding="utf-8") == kept.read_text(encoding="utf-8")


@pytest.mark.parametrize("package", [inbackward, inbackward_conformance], ids=lambda package: package.__name__)
def test_every_public_name_is_in_the_reference(package: object) -> None:
    name, public = (getattr(package, attribute) for attribute in ("__name__", "__all__"))
    page = {"inbackward": "inbackward.md"}.get(name, "conformance.md")
    text = (DOCS / "api" / page).read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\.\. auto\w+:: (\w+)(?:\(\))?$", text, re.MULTILINE)) == sorted(public)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compressed record of a run."""
    folder = tmp_path_factory.mktemp("records")
    cases = [case("mine", name, "conforms") for name in specification()]
    record = write_record(folder / "mine.jsonl", *cases)
    (folder / "mine.jsonl.xz").write_bytes(lzma.compress(record.read_bytes()))
    return folder


def test_assembled_with_records(records: Path, tmp_path: Path) -> None:
    """The verdicts are those of the records; each requirement has an anchor; no link leads out of the repository."""
    texts = assemble(ROOT, tmp_path / "source", records)
    levels = [each.level for each in specification().values()]
    musts, shoulds = levels.count(Level.MUST), levels.count(Level.SHOULD)
    row = rf"\| \*\*mine\*\*.* \| ✓ conformant \| (\d+) of \1 \| {shoulds} of {shoulds} \|"
    kept = re.search(row, texts["index"])
    assert kept
    assert int(kept[1]) <= musts
    assert f"| ✓ conformant | {kept[1]} | 0 | 0 | 0 | 0 |" in texts["matrix"]
    assert "everything.html" in texts["matrix"]
    for name, requirement in specification().items():
        assert f"({anchor_of(name)})=\n## {name}\n" in texts[f"requirements/{requirement.chapter}"]
    assert not any("<!-- " in text for page, text in texts.items() if not page.startswith("source/"))


def test_assembled_without_records(tmp_path: Path) -> None:
    texts = assemble(ROOT, tmp_path / "source", tmp_path)
    assert NO_RECORDS in texts["index"]
    assert NO_RECORDS in texts["matrix"]
    assert "everything.html" not in texts["matrix"]


def test_links_from_file_to_file_are_links_from_page_to_page() -> None:
    pages = {"impl/README.md": "library", "docs/bench.md": "bench"}
    text = "[a](../docs/bench.md#sgd) [b](https://example.com/x.md) [c](#here) [d](recipe.py)\n\n```\n[e](no.md)\n```\n"
    linked, sources = link_pages(text, "impl/README.md", pages, lambda path: path == "impl/recipe.py")
    assert linked == text.replace("../docs/bench.md#sgd", "/bench.md#sgd").replace(
        "(recipe.py)", "(/source/impl/recipe.py.md)"
    )
    assert sources == {"impl/recipe.py"}


def test_a_link_to_no_file_is_an_error() -> None:
    with pytest.raises(NoSuchFile, match=r"impl/README.md links to docs/none.md"):
        link_pages("[a](../docs/none.md)", "impl/README.md", {}, lambda _: False)


def test_names_of_requirements_are_links() -> None:
    text = "`sharing/two_names`, [`sharing/two_names`](#x), `no/such`\n| sharing/two_names | kept |\n"
    link = "[`sharing/two_names`](#sharing-two-names)"
    expected = f"{link}, [`sharing/two_names`](#x), `no/such`\n| {link} | kept |\n"
    assert link_requirements(text, specification()) == expected


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="here"><a href="b.html#there">', encoding="utf-8")
    (tmp_path / "b.html").write_text('<a href="a.html#here"><a href="c.html"><a href="#x"><a href="http://y">', "utf-8")
    assert dead_links(tmp_path) == ["a.html: b.html#there", "b.html: c.html", "b.html: #x"]
