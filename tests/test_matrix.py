"""`python -m inbackward_conformance matrix`: how records come together, and what is made of them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from expecttest import assert_expected_inline

from conftest import Suite
from inbackward_conformance.__main__ import main
from records import case, write_record


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return write_record(
        tmp_path / "r.jsonl",
        case("one", "equivalence/closure", "refuses", detail="event 0, Attach() raises TypeError: no closure"),
        case("one", "listing/order", "fails", name="SGD", detail="<script>alert('&')</script>"),
        case("one", "listing/order", "conforms", name="AdamW"),
        case("two", "listing/order", "conforms"),
        case("two", "no_hook/stepped_by_hand", "refuses"),
        date="2026-01-02T03:04:05+00:00",
        torch="2.13.0",
        python="3.11.9",
        inbackward="0.1",
    )


def page_of(*records: Path, options: tuple[str, ...] = ()) -> Page:
    output = records[0].parent / "matrix.html"
    assert main(["matrix", *map(str, records), "-o", str(output), *options]) == 0
    return Page(output.read_text(encoding="utf-8"))


class Page(HTMLParser):
    """A page, and what a script in it would find: cells by column and requirement, references, details."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.cells: dict[str, str] = {}
        self.references: list[str] = []
        self.feed(text)
        (details,) = re.findall(r'<script type="application/json" id="details">(.*?)</script>', text, re.DOTALL)
        self.details: list[dict[str, dict[str, Any]]] = json.loads(details)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if "data-requirement" in found:
            self.cells[str(found["id"])] = str(found["aria-label"])
        self.references += [str(found[name]) for name in ("src", "href", "srcset", "action") if name in found]


def test_records_become_a_table(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["matrix", str(record)])
    assert_expected_inline(
        capsys.readouterr().out,
        """\
| requirement | one | two |
| --- | --- | --- |
| equivalence/closure | refuses |  |
| listing/order | fails | conforms |
| no_hook/stepped_by_hand |  | refuses |
| **verdict** | conformant | not conformant |
""",
    )
    main(["matrix", str(record), "--may-refuse"])
    assert_expected_inline(
        capsys.readouterr().out,
        """\
| requirement | one | two |
| --- | --- | --- |
| equivalence/closure | refuses |  |
""",
    )


def test_runs_of_different_chapters_are_one_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict is that of all of them; a local and a distributed run are the example."""
    local = write_record(tmp_path / "1.jsonl", case("one", "state/resume", "conforms"))
    distributed = write_record(tmp_path / "2.jsonl", case("one", "ddp/join", "diverges"))
    main(["matrix", str(local), str(distributed)])
    assert "| **verdict** | not conformant |" in capsys.readouterr().out


def test_the_page_names_the_versions_of_what_was_tested(record: Path, tmp_path: Path) -> None:
    main(["matrix", str(record), "-o", str(tmp_path / "m.html")])
    page = (tmp_path / "m.html").read_text(encoding="utf-8")
    assert "one-library 1.2, torch 2.13.0 on cpu" in page
    assert "one (one-library 1.2), two (two-library 1.2)" in page


@pytest.mark.parametrize("reverse", [False, True], ids=["in order", "in reverse"])
def test_a_later_run_of_a_chapter_replaces_it(
    reverse: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its date, in whatever order the records are given."""
    earlier = write_record(
        tmp_path / "1.jsonl",
        case("one", "listing/order", "fails"),
        case("one", "listing/same_each_time", "fails"),
        case("one", "state/resume", "conforms"),
        date="2026-01-01T00:00:00+00:00",
    )
    later = write_record(
        tmp_path / "2.jsonl", case("one", "listing/order", "conforms"), date="2026-01-02T00:00:00+02:00"
    )
    records = [str(earlier), str(later)]
    main(["matrix", *(reversed(records) if reverse else records)])
    assert_expected_inline(
        capsys.readouterr().out,
        """\
| requirement | one |
| --- | --- |
| listing/order | conforms |
| state/resume | conforms |
| **verdict** | conformant |
""",
    )


def test_cases_picked_out_replace_no_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write_record(tmp_path / "1.jsonl", case("one", "ddp/join", "diverges"), date="2026-01-01T00:00:00+00:00")
    picked = write_record(
        tmp_path / "2.jsonl", case("one", "ddp/join", "conforms"), whole=False, not_run=("state/resume",)
    )
    main(["matrix", str(whole), str(picked)])
    printed = capsys.readouterr().out
    assert "| ddp/join | diverges |" in printed
    assert "| state/resume | not run |" in printed  # what was left out is listed


def test_cases_picked_out_never_make_it_conformant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even where each requirement has a case, the others having been left out."""
    whole = write_record(tmp_path / "1.jsonl", case("one", "state/resume", "conforms"))
    picked = write_record(tmp_path / "2.jsonl", case("one", "listing/order", "conforms"), whole=False)
    main(["matrix", str(whole), str(picked)])
    assert "| **verdict** | incomplete |" in capsys.readouterr().out


def test_other_versions_and_devices_are_other_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        write_record(
            tmp_path / f"{torch}-{device}.jsonl", case("one", "listing/order", "fails"), torch=torch, device=device
        )
        for torch, device in [("2.13.0", "cpu"), ("2.13.0", "cuda"), ("2.14.0", "cpu")]
    ]
    main(["matrix", str(records[0]), str(records[1])])
    assert capsys.readouterr().out.startswith("| requirement | one (cpu) | one (cuda) |\n")
    main(["matrix", *map(str, records)])
    assert capsys.readouterr().out.startswith(
        "| requirement | one (torch 2.13.0, cpu) | one (torch 2.13.0, cuda) | one (torch 2.14.0, cpu) |\n"
    )


def test_every_cell_of_the_page_says_what_it_is(record: Path) -> None:
    assert page_of(record).cells == {
        "one:equivalence/closure": "refuses: one, equivalence/closure",
        "one:listing/order": "fails: one, listing/order",
        "two:listing/order": "conforms: two, listing/order",
        "two:no_hook/stepped_by_hand": "must not refuse: two, no_hook/stepped_by_hand",
    }


def test_the_page_needs_nothing_else(record: Path) -> None:
    page = page_of(record)
    assert page.references == []
    assert "@import" not in page.text
    assert "url(" not in page.text
    assert re.search("https?://", page.text) is None


def test_what_a_record_says_is_never_markup(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><!--"
    page = page_of(
        write_record(tmp_path / "r.jsonl", case(f"x:{hostile}", "listing/order", "fails", name=hostile, detail=hostile))
    )
    assert hostile not in page.text
    assert page.text.count("<script") == 2
    assert page.details[0]["listing/order"]["observations"][0]["detail"] == hostile


def test_a_cell_knows_what_was_observed(record: Path) -> None:
    cell = page_of(record).details[0]["listing/order"]
    assert cell == {
        "implementation": "one",
        "requirement": "listing/order",
        "level": "SHOULD",
        "outcome": "fails",
        "symbol": "✗",
        "word": "fails",
        "css": "broken",
        "expected": False,
        "cases": 2,
        "observations": [{"case": "SGD", "outcome": "fails", "detail": "<script>alert('&')</script>", "script": ""}],
        "run": "r.jsonl, 2026-01-02 03:04 UTC",
        "command": "python -m inbackward_conformance repro r.jsonl listing/order --implementation one",
    }


def test_a_cell_has_the_script_of_its_worst_case(record: Path) -> None:
    """Where the record has one."""
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    lines = [line | {"script": "import torch"} if line.get("outcome") == "fails" else line for line in lines]
    record.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert page_of(record).details[0]["listing/order"]["observations"][0]["script"] == "import torch"


def test_the_badge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says of how many chapters a verdict is, where it is not of all."""
    record = write_record(
        tmp_path / "r.jsonl", case("one", "state/resume", "conforms"), case("two", "listing/order", "conforms")
    )
    output = tmp_path / "badge.svg"
    main(["matrix", str(record), "--implementation", "one", "-o", str(output)])
    badge = ET.parse(output).getroot()  # noqa: S314 (we wrote it)
    assert re.fullmatch(r"optimizer in backward: conformant \(1 of \d+ chapters\)", badge.attrib["aria-label"])
    with pytest.raises(SystemExit):
        main(["matrix", str(record), "--format", "badge"])
    assert "a badge is of one column, here are one, two; choose by --implementation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "x.pdf"), "x.pdf: say --format markdown, html, badge, or use a name with .html, .md, .svg"),
        (("-o", "missing/x.html"), "missing/x.html: cannot be written (No such file or directory); check the path"),
        (("--implementation", "three"), "no record is of implementation 'three'; there are: one, two"),
    ],
    ids=["format", "path", "implementation"],
)
def test_what_cannot_be_done_is_one_line(
    options: tuple[str, ...],
    message: str,
    record: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(record.parent)
    with pytest.raises(SystemExit):
        main(["matrix", record.name, *options])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (slice(0, -1), "has no footer, its run did not reach its end; run it again"),
        (slice(1, None), "has no footer, its run did not reach its end; run it again"),
        (slice(0, 0), "has no footer, its run did not reach its end; run it again"),
    ],
    ids=["died", "no header", "empty"],
)
def test_a_run_that_died_is_refused(
    lines: slice, message: str, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = record.read_text(encoding="utf-8").splitlines()[lines]
    record.write_text("\n".join(kept), encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["matrix", str(record)])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"no": "kind"}', "not JSON Lines of a conformance run; give what --conformance-report wrote"),
        ("# Heading", "not JSON Lines of a conformance run; give what --conformance-report wrote"),
        ('{"kind": "header"}\n{"kind": "footer"}', "of another version of the suite (KeyError: 'date'); run it again"),
    ],
    ids=["other JSON", "no JSON", "keys missing"],
)
def test_what_is_no_record_is_refused(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["matrix", str(path)])
    assert message in capsys.readouterr().err


def test_promises_of_two_specifications_are_not_compared(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_record(tmp_path / "2.jsonl", case("one", "listing/order", "fails"), spec="0.9")
    with pytest.raises(SystemExit):
        main(["matrix", str(record), str(other)])
    assert "is of 1.0; make both with one version of the suite" in capsys.readouterr().err


def test_a_real_record(suite: Suite) -> None:
    """The page says what the record's own footer says."""
    suite.run("--implementation=reference", "--implementation=torch", chapter="attachment")
    page = page_of(suite.report)
    assert {name.partition(":")[0] for name in page.cells} == {"reference", "torch"}
    footer = suite.record()[-1]["implementations"]
    for number, name in enumerate(("reference", "torch")):
        verdict = footer[name].pop("verdict")
        assert re.search(rf"<h3>{name}</h3>\n<p class=\"verdict\">.*</span> {verdict}</p>", page.text)
        outcomes = [cell["outcome"] for cell in page.details[number].values()]
        assert {outcome: outcomes.count(outcome) for outcome in footer[name]} == footer[name]
