"""The site of the documentation in a real browser: `nox -s browser` builds it and runs this."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

SITE = Path(os.environ["INBACKWARD_SITE"])
PHONE, DESKTOP = 400, 1280
BY_PROGRAMS = ("_modules/**/*.html", "source/**/*.html")
"""Pages that show code and look alike: one of each kind is enough."""
WITHOUT_AXE = ("everything.html",)
"""Pages with thousands of cells, which `matrix_page.py` looks at."""

BAD = {"error", "warning"}

OpenPage = Callable[..., Page]


def pages_of_the_site() -> list[str]:
    alike = [sorted(SITE.glob(pattern)) for pattern in BY_PROGRAMS]
    others = {*SITE.rglob("*.html")} - {*SITE.glob("_static/**/*.html")} - {*chain(*alike)}
    return [str(path.relative_to(SITE)) for path in [*sorted(others), *(paths[0] for paths in alike if paths)]]


PAGES = pages_of_the_site()


class Quiet(SimpleHTTPRequestHandler):
    """Serves the site without printing each request."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name in the class above)
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The search fetches pages, which a browser does from a server alone."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[OpenPage]:
    """Opens a page; at the end nothing must have gone wrong in it, and nothing been asked of another host."""
    complaints: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_one(path: str, *, width: int = DESKTOP, theme: str = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type in BAD else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/{path}")
        contexts.append(context)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


def background(page: Page) -> int:
    """The sum of red, green and blue behind the page."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    return sum(color[:3])


@pytest.mark.parametrize("path", PAGES)
def test_page(open_page: OpenPage, path: str) -> None:
    """Nothing is wider than the window, in both themes; the console is empty, as `open_page` sees to."""
    for theme in ("light", "dark"):
        page = open_page(path, width=DESKTOP, theme=theme)
        for width in (DESKTOP, PHONE):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{theme}, {width} px"
        assert background(page) < 200 if theme == "dark" else background(page) > 600


@pytest.mark.skipif("INBACKWARD_AXE" not in os.environ, reason="no npm, so no axe: accessibility is not checked")
@pytest.mark.parametrize("path", [path for path in PAGES if path not in WITHOUT_AXE])
def test_accessibility(open_page: OpenPage, path: str) -> None:
    """Axe finds nothing serious or critical, at either width, in either theme."""
    found = set()
    for theme in ("light", "dark"):
        page = open_page(path, width=DESKTOP, theme=theme)
        page.evaluate(Path(os.environ["INBACKWARD_AXE"]).read_text(encoding="utf-8"))
        for width in (DESKTOP, PHONE):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(500)  # the theme makes what scrolls now focusable
            result = page.evaluate("axe.run({resultTypes: ['violations']})")
            found |= {
                (violation["impact"], violation["id"], str(node["target"]), width, theme)
                for violation in result["violations"]
                if violation["impact"] in {"serious", "critical"}
                for node in violation["nodes"]
            }
    assert sorted(found) == []


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_search_finds_a_requirement(open_page: OpenPage, width: int) -> None:
    page = open_page("index.html", width=width)
    page.locator(".search-button__button:visible, .search-button:visible").first.click()
    field = page.locator("input[type=search]:visible")
    field.fill("listed_twice_with_state")
    field.press("Enter")
    link = page.locator("#search-results a", has_text="sharing/listed_twice_with_state").first
    link.click()
    page.wait_for_url("**/requirements/sharing.html**")
    assert page.locator("#sharing-listed-twice-with-state").count() == 1


def test_a_requirement_has_an_address(open_page: OpenPage) -> None:
    page = open_page("requirements/sharing.html#sharing-listed-twice-with-state")
    box = page.locator("#sharing-listed-twice-with-state").first.bounding_box()
    assert box
    assert 0 <= box["y"] < 900


def test_the_theme_can_be_chosen(open_page: OpenPage) -> None:
    """It stays chosen on the next page, and pictures follow it."""
    page = open_page("why.html", theme="light")
    pictures = page.locator("img.only-light"), page.locator("img.only-dark")
    assert [picture.is_visible() for picture in pictures] == [True, False]
    page.locator(".theme-switch-button:visible").click()
    page.locator(".theme-change-button[data-mode=dark]:visible").click()
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert background(page) < 200
    assert [picture.is_visible() for picture in pictures] == [False, True]
    page.goto(page.url.replace("why.html", "how.html"))
    assert background(page) < 200


def test_all_results_are_there(open_page: OpenPage) -> None:
    """The page of results opens at full width, and leads back."""
    if "everything.html" not in PAGES:
        pytest.skip("the site was built without records")
    page = open_page("matrix.html")
    page.get_by_role("link", name="Open all results").click()
    page.wait_for_url("**/everything.html")
    assert page.locator(".requirement").count() > 200
    page.get_by_role("link", name="inbackward documentation").click()
    page.wait_for_url("**/matrix.html")
