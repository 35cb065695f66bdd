"""The browser of all these tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (in the environment of `nox -s browser` alone)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["INBACKWARD_CHROMIUM"])
        yield browser
        browser.close()
