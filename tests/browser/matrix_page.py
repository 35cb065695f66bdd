"""The page of records in a real browser: `nox -s browser` runs this, and nothing else collects it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from playwright.sync_api import Browser, Locator, Page

from inbackward_conformance.__main__ import main
from inbackward_conformance.outcome import Outcome
from inbackward_conformance.specification import specification
from records import case, write_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inbackward_conformance.report.record import CaseRecord

PHONE, DESKTOP = 390, 1280
HOSTILE = "</script><b>not & bold</b>"
SCRIPT = "import torch\n\nmodel = torch.nn.Linear(2, 2)\n" + "x = 1  # " + "a long line, " * 20

OpenPage = Callable[..., Page]


def cases_of(implementation: str) -> Iterator[CaseRecord]:
    """Conforms, but for one implementation that shows everything there is, a chapter an outcome."""
    chapters = list(dict.fromkeys(found.chapter for found in specification().values()))
    outcomes = dict(zip(chapters, Outcome, strict=False)) if implementation == "everything" else {}
    for name, found in specification().items():
        outcome = outcomes.get(found.chapter, Outcome.CONFORMS)
        detail = f"detail of {name}: {HOSTILE}" if outcome is not Outcome.CONFORMS else ""
        yield case(implementation, name, outcome, name="first", detail=detail, script=SCRIPT)
        yield case(implementation, name, "conforms", name="second")


def make_page(folder: Path, *names: str) -> str:
    with mock.patch("inbackward_conformance.specification.is_installed", return_value=True):  # torch is not, here
        records = [write_record(folder / f"{number}.jsonl", *cases_of(name)) for number, name in enumerate(names)]
    page = folder / "matrix.html"
    main(["matrix", *map(str, records), "-o", str(page)])
    return page.as_uri()


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    long = "my_package.module_with_a_long_name:Implementation"
    return make_page(tmp_path_factory.mktemp("five"), "sound", "everything", "third", "fourth", long)


@pytest.fixture(scope="session")
def url_of_one(tmp_path_factory: pytest.TempPathFactory) -> str:
    """With each outcome, and few cells: axe looks at every one."""
    return make_page(tmp_path_factory.mktemp("one"), "everything")


@pytest.fixture
def open_page(browser: Browser, url: str, url_of_one: str) -> Iterator[OpenPage]:
    """Opens the page; at the end nothing must have gone wrong in it, and nothing else been asked for."""
    complaints: list[str] = []
    asked: list[str] = []
    pages: list[Page] = []

    def open_one(address: str = url, *, width: int = DESKTOP, theme: str = "light", **options: Any) -> Page:
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=theme, **options)
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.close()
    assert complaints == []
    assert {request.partition("#")[0] for request in asked} <= {url, url_of_one}


def cell(page: Page, implementation: str, requirement: str) -> Locator:
    return page.locator(f"[id='{implementation}:{requirement}']")


def shown(page: Page) -> Any:
    """The requirements that can be seen."""
    return page.eval_on_selector_all(
        ".requirement",
        "rows => rows.filter(row => row.offsetHeight).map(row => row.querySelector('button').dataset.requirement)",
    )


def of(chapter: str) -> list[str]:
    return [name for name, found in specification().items() if found.chapter == chapter]


def test_everything_is_shown_at_first(open_page: OpenPage) -> None:
    page = open_page()
    assert shown(page) == list(specification())
    assert page.locator("output").text_content() == f"{len(specification())} of {len(specification())} shown"


def test_verdicts_come_first(open_page: OpenPage) -> None:
    page = open_page()
    assert page.locator(".cards .verdict").all_inner_texts()[:2] == ["✓ conformant", "✗ not conformant"]
    assert page.locator(".cards").bounding_box()["y"] < 300


def test_filter_by_chapter(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_label("Chapter").select_option("sharing")
    assert shown(page) == of("sharing")
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("document.querySelectorAll('.requirement[hidden]').length === 0")


def test_filter_by_level(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_label("Level").select_option("SHOULD")
    assert shown(page) == [name for name, found in specification().items() if found.level == "SHOULD"]


def test_filter_by_outcome(open_page: OpenPage) -> None:
    page = open_page()
    crashes, hangs = list(dict.fromkeys(found.chapter for found in specification().values()))[:2]
    page.get_by_label("Outcome").select_option("hangs")
    assert shown(page) == of(hangs)
    page.get_by_label("Outcome").select_option("any broken promise")
    assert {*of(crashes), *of(hangs)} <= set(shown(page))
    assert not page.locator(".requirement:visible:not(:has(button.broken))").count()


def test_filter_by_text(open_page: OpenPage) -> None:
    """In names, in normative texts, and in what was observed."""
    page = open_page()
    page.get_by_label("Text").fill("SHARING/listed_twice")
    assert shown(page) == [name for name in specification() if name.startswith("sharing/listed_twice")]
    page.get_by_label("Text").fill(specification()["sharing/two_names"].text.replace("`", "")[:40])
    assert shown(page) == ["sharing/two_names"]
    first = next(iter(specification()))
    page.get_by_label("Text").fill(f"detail of {first}: </script>")
    assert shown(page) == [first]


def test_nothing_found_is_said(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_label("Text").fill("no such thing")
    assert page.get_by_text("No requirement is like that.").is_visible()
    assert page.locator("output").text_content() == f"0 of {len(specification())} shown"


def test_a_click_tells_what_was_observed(open_page: OpenPage) -> None:
    page = open_page()
    first = next(iter(specification()))
    cell(page, "everything", first).click()
    dialog = page.get_by_role("dialog", name=first)
    text = dialog.inner_text()
    assert "everything: † crashes, a MUST" in text
    assert f"crashes, case first: detail of {first}: {HOSTILE}" in text
    assert specification()[first].text.splitlines()[0].replace("`", "") in text
    assert f"python -m inbackward_conformance repro 1.jsonl {first} --implementation everything" in text
    assert dialog.locator(".script").text_content() == SCRIPT
    assert dialog.locator("b", has_text="not & bold").count() == 0


def test_the_keyboard_is_enough(open_page: OpenPage) -> None:
    """One tab stop for all cells, arrow keys among them, Enter opens, Escape closes and leads back."""
    page = open_page()
    first, second = list(specification())[:2]
    page.get_by_role("region", name="Table of requirements").focus()
    page.keyboard.press("Tab")
    for key, focused in [
        ("ArrowDown", f"sound:{second}"),
        ("ArrowRight", f"everything:{second}"),
        ("ArrowUp", f"everything:{first}"),
        ("Home", f"sound:{first}"),
        ("ArrowLeft", f"sound:{first}"),
        ("ArrowRight", f"everything:{first}"),
    ]:
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.id") == focused
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog", name=first).is_visible()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    assert page.evaluate("document.activeElement.id") == f"everything:{first}"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#matrix')") is None


def test_the_focused_cell_is_not_hidden_by_headers(open_page: OpenPage) -> None:
    page = open_page(width=PHONE)
    cell(page, "fourth", "state/resume").focus()
    for key in ["ArrowUp"] * 12 + ["ArrowLeft"] * 3:
        page.keyboard.press(key)
        assert page.evaluate("""() => {
            const box = document.activeElement.getBoundingClientRect();
            const at = document.elementFromPoint(box.x + 3, box.y + 3);
            return document.activeElement.contains(at);
        }""")


def test_a_link_leads_to_a_cell(open_page: OpenPage, url: str) -> None:
    page = open_page()
    cell(page, "third", "sharing/two_names").click()
    fragment = page.evaluate("location.hash")
    assert open_page(url + fragment).get_by_role("dialog", name="sharing/two_names").is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_nothing_is_wider_than_the_window(open_page: OpenPage, width: int, theme: str) -> None:
    """The tables scroll within their own containers."""
    page = open_page(width=width, theme=theme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    cell(page, "everything", next(iter(specification()))).click()
    box = page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert page.evaluate("(d => d.scrollWidth - d.clientWidth)(document.querySelector('dialog'))") == 0


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_headers_stay_in_view(open_page: OpenPage, width: int) -> None:
    page = open_page(width=width)
    scroll = page.locator(".scroll", has=page.locator("#matrix"))
    scroll.scroll_into_view_if_needed()
    scroll.evaluate("element => element.scrollTo(150, 2500)")
    box = scroll.bounding_box()
    corner = page.locator("#matrix thead th").first.bounding_box()
    assert (corner["x"], corner["y"]) == pytest.approx((box["x"], box["y"]), abs=2)


def test_themes(open_page: OpenPage) -> None:
    """The system's, and whichever the reader chooses."""
    lightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((sum, part) => sum + +part, 0)"
    dark, light = open_page(theme="dark"), open_page(theme="light")
    assert dark.evaluate(lightness) < 200
    assert light.evaluate(lightness) > 600
    dark.get_by_label("Theme").select_option("light")
    light.get_by_label("Theme").select_option("dark")
    assert light.evaluate(lightness) < 200
    assert dark.evaluate(lightness) > 600
    dark.get_by_label("Theme").select_option("as the system")
    assert dark.evaluate(lightness) < 200


def test_it_can_be_printed(open_page: OpenPage) -> None:
    """All of it, on white, without what needs a mouse."""
    page = open_page(theme="dark")
    page.get_by_label("Theme").select_option("dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.get_by_role("search").is_visible()
    scroll = page.locator(".scroll", has=page.locator("#matrix"))
    assert scroll.evaluate("element => getComputedStyle(element).overflow") == "visible"
    assert scroll.bounding_box()["height"] >= page.locator("#matrix").bounding_box()["height"]
    assert page.pdf(format="A4", landscape=True).startswith(b"%PDF")


def test_it_can_be_read_without_scripts(open_page: OpenPage) -> None:
    page = open_page(java_script_enabled=False)
    assert page.locator(".requirement:visible").count() == len(specification())
    assert not page.get_by_role("search").is_visible()
    assert not page.get_by_label("Theme").is_visible()


@pytest.mark.skipif("INBACKWARD_AXE" not in os.environ, reason="no npm, so no axe: accessibility is not checked")
@pytest.mark.parametrize("dialog", [False, True], ids=["page", "dialog"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_accessibility(open_page: OpenPage, url_of_one: str, width: int, theme: str, dialog: bool) -> None:
    """Axe has nothing to say against it."""
    page = open_page(url_of_one, width=width, theme=theme)
    if dialog:
        cell(page, "everything", next(iter(specification()))).click()
    else:
        page.get_by_text("What the outcomes mean").click()
    page.evaluate(Path(os.environ["INBACKWARD_AXE"]).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert found["passes"]
    assert [
        (violation["impact"], violation["id"], [node["target"] for node in violation["nodes"]][:3])
        for violation in found["violations"]
    ] == []
