"""The dashboard and a pilot's page in a real browser: desk, phone, dark, paper, without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clr.pilot.page import render
from tests.browser.conftest import FLAGS
from tests.pilot.documents import LINE, document
from tests.serving import dashboards
from tests.serving.plants import build

NOW = datetime(2027, 3, 20, tzinfo=UTC)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on this machine, without keys, with half a year behind it."""
    from tests import templates

    templates.migrate_once()
    made = build(tmp_path_factory.mktemp("dashboard") / "plant")
    dashboards.fill(made, NOW)
    with dashboards.running(made.settings(serve_keys=False)) as url:
        yield url


@pytest.fixture(scope="module")
def browser(chromium: str, address: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that notes what the policy refused and what was asked of others."""
    shown = browser.new_page()
    shown.faults = []
    shown.on("console", lambda said: shown.faults.append(said.text))
    shown.on("pageerror", lambda error: shown.faults.append(str(error)))
    yield shown
    shown.close()


@pytest.mark.parametrize("width", [360, 768, 1180])
@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/red"])
def test_nothing_is_wider_than_the_screen(path: str, width: int, page: Any, address: str) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address + path)
    if path != "/dashboard":
        page.get_by_text("The same as a table").click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.faults == []


def test_from_a_task_to_its_figures_and_back(page: Any, address: str) -> None:
    page.goto(f"{address}/dashboard")
    page.get_by_role("link", name="red", exact=True).click()
    page.get_by_role("heading", name="red", exact=True).wait_for()
    assert page.get_by_role("img", name="Error rate, 95 % interval").is_visible()
    assert page.get_by_text("clr audit red@1").is_visible()
    page.get_by_role("link", name="All tasks").click()
    page.get_by_role("heading", name="Release 2 serves 3 tasks").wait_for()


def test_a_phone_names_every_figure(page: Any, address: str) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto(f"{address}/dashboard")
    cell = page.locator("td[data-name=Items]").first
    assert cell.evaluate("one => getComputedStyle(one, '::before').content") == '"Items"'
    assert not page.locator("#tasks thead").is_visible()


def test_the_style_sheet_is_in_force_and_the_dark_one_too(page: Any, address: str) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{address}/dashboard")
        colours.append(
            page.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor")
        )
    assert colours == ["rgb(255, 255, 255)", "rgb(26, 34, 42)"]
    assert page.faults == []


def test_it_needs_no_scripts(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto(f"{address}/dashboard/red")
    assert shown.get_by_role("img", name="Items a month").is_visible()
    context.close()


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("width", [360, 1000])
def test_a_pilots_page_fits(width: int, language: str, page: Any, tmp_path: Path) -> None:
    path = tmp_path / "pilot.html"
    path.write_text(render(document(line=LINE), language), encoding="utf-8")
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = page.locator("svg.wide").is_visible(), page.locator("svg.narrow").is_visible()
    assert wide == ((True, False) if width == 1000 else (False, True))
    assert page.faults == []
