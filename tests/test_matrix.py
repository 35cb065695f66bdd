"""`python -m inbackward_conformance matrix`: how records come together, and what is made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
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
        case("one", "listing/order", "fails", name="SGD", detail="<script>alert('&')</script>", script="import torch"),
        case("one", "listing/order", "conforms", name="AdamW"),
        case("two", "listing/order", "conforms"),
        case("two", "no_hook/stepped_by_hand", "refuses"),
        date="2026-01-02T03:04:05+00:00",
        torch="2.13.0",
        python="3.11.9",
        inbackward="0.1",
    )


Matrix = Callable[..., str]


@pytest.fixture
def matrix(capsys: pytest.CaptureFixture[str]) -> Matrix:
    """Run the command, and return what it prints."""

    def run(*arguments: object) -> str:
        assert main(["matrix", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Matrix:
    """Run the command, which ends with an error, and return that."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit):
            main(["matrix", *map(str, arguments)])
        return capsys.readouterr().err

    return run


def page_of(record: Path) -> Page:
    output = record.parent / "matrix.html"
    assert main(["matrix", str(record), "-o", str(output)]) == 0
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
        values = dict(attrs)
        if "data-requirement" in values:
            self.cells[str(values["id"])] = str(values["aria-label"])
        self.references += [str(values[name]) for name in ("src", "href", "srcset", "action") if name in values]


def test_records_become_a_table(record: Path, matrix: Matrix) -> None:
    assert_expected_inline(
        matrix(record),
        """\
| requirement | one | two |
| --- | --- | --- |
| equivalence/closure | refuses |  |
| listing/order | fails | conforms |
| no_hook/stepped_by_hand |  | refuses |
| **verdict** | conformant | not conformant |
""",
    )
    assert_expected_inline(
        matrix(record, "--may-refuse"),
        """\
| requirement | one | two |
| --- | --- | --- |
| equivalence/closure | refuses |  |
""",
    )


def test_runs_of_different_chapters_are_one_column(tmp_path: Path, matrix: Matrix) -> None:
    """The verdict is that of all of them; a local and a distributed run are the example."""
    local = write_record(tmp_path / "1.jsonl", case("one", "state/resume", "conforms"))
    distributed = write_record(tmp_path / "2.jsonl", case("one", "ddp/join", "diverges"))
    assert "| **verdict** | not conformant |" in matrix(local, distributed)


def test_the_page_names_the_versions_of_what_was_tested(record: Path) -> None:
    page = page_of(record)
    assert "one-library 1.2, torch 2.13.0 on cpu" in page.text
    assert "one (one-library 1.2), two (two-library 1.2)" in page.text


@pytest.mark.parametrize("reverse", [False, True], ids=["in order", "in reverse"])
def test_a_later_run_of_a_chapter_replaces_it(reverse: bool, tmp_path: Path, matrix: Matrix) -> None:
    """By its date, in whatever order the records are given."""
    earlier = write_record(
        tmp_path / "1.jsonl",
        case("one", "listing/order", "fails"),
        case("one", "listing/same_each_time", "fails"),
        case("one", "state/resume", "conforms"),
        date="2026-01-01T00:00:00+00:00",
    )
    case_of_later = case("one", "listing/order", "conforms")
    later = write_record(tmp_path / "2.jsonl", case_of_later, date="2026-01-02T00:00:00+02:00")
    assert_expected_inline(
        matrix(later, earlier) if reverse else matrix(earlier, later),
        """\
| requirement | one |
| --- | --- |
| listing/order | conforms |
| state/resume | conforms |
| **verdict** | conformant |
""",
    )


def test_cases_picked_out_replace_no_whole_run(tmp_path: Path, matrix: Matrix) -> None:
    whole = write_record(tmp_path / "1.jsonl", case("one", "ddp/join", "diverges"), date="2026-01-01T00:00:00+00:00")
    conforms = case("one", "ddp/join", "conforms")
    picked = write_record(tmp_path / "2.jsonl", conforms, whole=False, not_run=("state/resume",))
    printed = matrix(whole, picked)
    assert "| ddp/join | diverges |" in printed
    assert "| state/resume | not run |" in printed  # what was left out is listed


def test_cases_picked_out_never_make_it_conformant(tmp_path: Path, matrix: Matrix) -> None:
    """Not even where each requirement has a case, the others having been left out."""
    whole = write_record(tmp_path / "1.jsonl", case("one", "state/resume", "conforms"))
    picked = write_record(tmp_path / "2.jsonl", case("one", "listing/order", "conforms"), whole=False)
    assert "| **verdict** | incomplete |" in matrix(whole, picked)


def test_other_versions_and_devices_are_other_columns(tmp_path: Path, matrix: Matrix) -> None:
    fails = case("one", "listing/order", "fails")
    cpu = write_record(tmp_path / "1.jsonl", fails, torch="2.13.0", device="cpu")
    cuda = write_record(tmp_path / "2.jsonl", fails, torch="2.13.0", device="cuda")
    later = write_record(tmp_path / "3.jsonl", fails, torch="2.14.0", device="cpu")
    assert matrix(cpu, cuda).startswith("| requirement | one (cpu) | one (cuda) |\n")
    columns = "| one (torch 2.13.0, cpu) | one (torch 2.13.0, cuda) | one (torch 2.14.0, cpu) |\n"
    assert matrix(cpu, cuda, later).startswith(f"| requirement {columns}")


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


def test_the_page_says_what_a_column_was_tested_with(tmp_path: Path) -> None:
    """Its own classes, its rounding, what ran in part, and why the rest did not run."""
    record = write_record(
        tmp_path / "r.jsonl",
        case("one", "sharing/two_names", "conforms", name="SGD"),
        case("one", "sharing/two_names", "not offered", name="AdamW"),
        case("one", "sharing/used_twice", "not run", detail="it requires <cuda>, and the run is on cpu"),
        case("two", "listing/order", "conforms"),
        optimizers={"one": ["lomo_optim:Lomo", "lomo_optim:AdaLomo"]},
        rounding={"one": {"size": 1e-6, "reason": "sums have another order"}},
    )
    page = page_of(record)
    assert "</span> <b>0</b> of 2 kept, 1 in part, 1 not run</p>" in page.text
    assert "<p>Not run" not in page.text
    assert "Not run: it requires &lt;cuda&gt;, and the run is on cpu (1 requirements)" in page.text
    assert page.text.count("Compared to 1e-06 of the largest value (sums have another order)") == 1
    assert page.text.count("Tested with its own lomo_optim:Lomo, lomo_optim:AdaLomo") == 1
    assert page.cells["one:sharing/two_names"] == "in part: one, sharing/two_names"
    assert page.details[0]["sharing/two_names"]["outcome"] == "in part"


def test_a_record_of_before_can_be_read(record: Path, tmp_path: Path, matrix: Matrix) -> None:
    """Without the keys that tell of own classes, of rounding, and of cases that tested something."""
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        for key in ("optimizers", "rounding", "tested"):
            line.pop(key, None)
    old = tmp_path / "old.jsonl"
    old.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert matrix(old) == matrix(record)


def test_a_header_without_an_implementation_is_refused(record: Path, refused: Matrix) -> None:
    header, rest = record.read_text(encoding="utf-8").split("\n", 1)
    record.write_text(json.dumps(json.loads(header) | {"versions": {"one": ""}}) + "\n" + rest, encoding="utf-8")
    assert "its header lacks two, of which its footer has a verdict; run it again" in refused(record)


def test_a_name_is_no_markdown(tmp_path: Path, matrix: Matrix) -> None:
    name = "my_package.__init__:x|`y`\n<b>"
    printed = matrix(write_record(tmp_path / "r.jsonl", case(name, "listing/order", "conforms")))
    assert printed.splitlines()[0] == r"| requirement | my_package.\_\_init\_\_:x\|\`y\` \<b\> |"


def test_what_a_record_says_is_never_markup(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><!--"
    fails = case(f"x:{hostile}", "listing/order", "fails", name=hostile, detail=hostile)
    page = page_of(write_record(tmp_path / "r.jsonl", fails))
    assert hostile not in page.text
    assert page.text.count("<script") == 2
    assert page.details[0]["listing/order"]["observations"][0]["detail"] == hostile


def test_a_cell_knows_what_was_observed(record: Path) -> None:
    assert page_of(record).details[0]["listing/order"] == {
        "implementation": "one",
        "requirement": "listing/order",
        "level": "SHOULD",
        "outcome": "fails",
        "symbol": "✗",
        "word": "fails",
        "css": "broken",
        "expected": False,
        "cases": 2,
        "observations": [
            {"case": "SGD", "outcome": "fails", "detail": "<script>alert('&')</script>", "script": "import torch"}
        ],
        "run": "r.jsonl, 2026-01-02 03:04 UTC",
        "command": "python -m inbackward_conformance repro r.jsonl listing/order --implementation one",
    }


def test_the_badge(tmp_path: Path, matrix: Matrix, refused: Matrix) -> None:
    """It says of how many chapters a verdict is, where it is not of all."""
    record = write_record(
        tmp_path / "r.jsonl", case("one", "state/resume", "conforms"), case("two", "listing/order", "conforms")
    )
    output = tmp_path / "badge.svg"
    matrix(record, "--implementation", "one", "-o", output)
    badge = ET.parse(output).getroot()  # noqa: S314 (we wrote it)
    assert re.fullmatch(r"optimizer in backward: conformant \(1 of \d+ chapters\)", badge.attrib["aria-label"])
    error = refused(record, "--format", "badge")
    assert "a badge is of one column, here are one, two; choose by --implementation" in error


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
    options: tuple[str, ...], message: str, record: Path, refused: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(record.parent)
    assert message in refused(record.name, *options)


@pytest.mark.parametrize("lines", [slice(0, -1), slice(1, None), slice(0, 0)], ids=["no footer", "no header", "empty"])
def test_a_run_that_died_is_refused(lines: slice, record: Path, refused: Matrix) -> None:
    record.write_text("\n".join(record.read_text(encoding="utf-8").splitlines()[lines]), encoding="utf-8")
    assert "has no footer, its run did not reach its end; run it again" in refused(record)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"no": "kind"}', "not JSON Lines of a conformance run; give what --conformance-report wrote"),
        ("# Heading", "not JSON Lines of a conformance run; give what --conformance-report wrote"),
        ('{"kind": "header"}\n{"kind": "footer"}', "of another version of the suite (KeyError: 'date'); run it again"),
    ],
    ids=["other JSON", "no JSON", "keys missing"],
)
def test_what_is_no_record_is_refused(text: str, message: str, tmp_path: Path, refused: Matrix) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text, encoding="utf-8")
    assert message in refused(path)


def test_promises_of_two_specifications_are_not_compared(record: Path, tmp_path: Path, refused: Matrix) -> None:
    other = write_record(tmp_path / "2.jsonl", case("one", "listing/order", "fails"), spec="0.9")
    assert "is of 1.0; make both with one version of the suite" in refused(record, other)


def test_a_real_record(suite: Suite) -> None:
    """The page says what the record's own footer says."""
    suite.run("--implementation=reference", "--implementation=torch", chapter="attachment")
    page = page_of(suite.report)
    assert {name.partition(":")[0] for name in page.cells} == {"reference", "torch"}
    footer = suite.record()[-1]["implementations"]
    for number, name in enumerate(("reference", "torch")):
        verdict, levels = footer[name].pop("verdict"), footer[name].pop("levels")
        assert sum(levels["MUST"].values()) + sum(levels["SHOULD"].values()) == len(page.details[number])
        assert re.search(rf"<h3>{name}</h3>\n<p class=\"verdict\">.*</span> {verdict}</p>", page.text)
        outcomes = [cell["outcome"] for cell in page.details[number].values()]
        assert {outcome: outcomes.count(outcome) for outcome in footer[name]} == footer[name]
