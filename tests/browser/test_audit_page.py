"""The page of an audit in a real browser: on a phone, on paper."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from clr.audit.page import render
from tests.audit.documents import document
from tests.browser.conftest import FLAGS


@pytest.fixture(scope="module")
def page(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page()
        page.set_content(render(document()))
        yield page
        browser.close()


def shown(page: Any) -> dict[str, bool]:
    """What of the page a reader sees."""
    return {
        "wide picture": page.locator("svg.graph").is_visible(),
        "narrow picture": page.locator("svg.chain").is_visible(),
        "folded recipe": page.get_by_text("kernel_lr").is_visible(),
    }


@pytest.mark.parametrize(
    ("width", "media", "seen"),
    [
        (1180, "screen", {"wide picture"}),
        (375, "screen", {"narrow picture"}),
        (718, "print", {"wide picture", "folded recipe"}),
    ],
    ids=["desk", "phone", "paper"],
)
def test_what_a_reader_sees(page: Any, width: int, media: str, seen: set[str]) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(media=media)
    assert {name for name, visible in shown(page).items() if visible} == seen
    assert page.evaluate("document.documentElement.scrollWidth") == width
