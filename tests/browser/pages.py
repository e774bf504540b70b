"""MLflow's page of a version, as a person uses it: what is read on it and pressed on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Locator, Page

NOTICE = ".du-bois-light-notification-notice-error"
"""What MLflow's red messages at the top right are made of."""

SECONDS = 60
"""The longest that anything may take to appear, on a machine that is busy with other things."""


@dataclass(frozen=True, eq=False)
class VersionPage:
    """The page of one version, opened by somebody who is signed in.

    Attributes:
        page: Playwright's page.
        url: of the server.
        dialogs: what scripts in the page said to the reader; nothing should.
        foreign: addresses outside of the server that the page asked for; there should be none.
    """

    page: Page
    url: str
    dialogs: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def show(self, model: str, number: int, *, anew: bool = False) -> VersionPage:
        """Open the version's page; `anew` loads it again where it is open already."""
        self.page.goto(f"{self.url}/#/models/{model}/versions/{number}")
        if anew:
            self.page.reload()
        self.page.get_by_role("link", name=model, exact=True).first.wait_for()
        self.page.get_by_role("heading", name=f"Version {number}", exact=True).wait_for()
        self.row("review").wait_for()
        return self

    @property
    def card(self) -> Locator:
        """The card: what stands under the word Description."""
        return self.page.get_by_test_id("note-view-outer-container").first

    def row(self, tag: str) -> Locator:
        """The row of a tag in the list of tags."""
        return self.page.locator(f'tr[data-row-key="{tag}"]')

    def tag(self, name: str) -> str:
        """Return the value of a tag as the page shows it."""
        return self.row(name).locator("td").nth(1).inner_text().strip()

    def write_tag(self, name: str, value: str) -> None:
        """Press the pencil of a tag, write, press **Save**."""
        row = self.row(name)
        row.get_by_test_id("editable-table-button-edit").click()
        row.get_by_role("textbox").fill(value)
        row.get_by_role("button", name="Save").click()

    def write_new_tag(self, name: str, value: str) -> None:
        """Fill in the form under the list of tags: Name, Value, **Add**."""
        self.page.get_by_placeholder("Name").last.fill(name)
        self.page.get_by_placeholder("Value").last.fill(value)
        self.page.get_by_role("button", name="Add", exact=True).click()

    def write_new_tag_until_shown(self, name: str, value: str) -> None:
        """Do so until the list shows it: a page that is still loading empties its form again."""
        from playwright.sync_api import TimeoutError as NotShown

        for last in (False, False, True):
            self.write_new_tag(name, value)
            try:
                self.row(name).wait_for(timeout=20_000)
                return
            except NotShown:
                if last:
                    raise

    def edit_tag(self, name: str, value: str) -> str:
        """Write a tag; return the message that follows."""
        self.write_tag(name, value)
        return self.message()

    def add_tag(self, name: str, value: str) -> str:
        """Write a new tag; return the message that follows."""
        self.write_new_tag(name, value)
        return self.message()

    def remove_tag(self, name: str) -> str:
        """Press the dustbin of a tag, and **Confirm**; return the message that follows."""
        self.row(name).get_by_test_id("editable-table-button-delete").click()
        self.page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
        return self.message()

    def set_alias(self, alias: str) -> str:
        """Add an alias by the page's dialog; return what the dialog says about it, and close it."""
        self.page.get_by_title(re.compile("(Add|Edit) aliases")).click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_role("combobox").fill(alias)
        self.page.keyboard.press("Enter")
        dialog.get_by_role("button", name="Save aliases").click()
        said = dialog.get_by_role("alert").last
        said.wait_for()
        text = said.inner_text()
        dialog.get_by_role("button", name="Cancel").click()
        return text

    def promote_to(self, model: str) -> str:
        """Press the blue button **Promote model**, choose a model, press **Promote**.

        Returns:
            the message that follows; the dialog is closed.
        """
        self.page.get_by_role("button", name="Promote model").click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_role("combobox").fill(model)
        self.page.locator(".du-bois-light-select-item-option", has_text=model).last.click()
        dialog.get_by_role("button", name="Promote", exact=True).click()
        said = self.message()
        self.page.reload()  # MLflow's page forgets the version's aliases over a refusal
        self.row("review").wait_for()
        return said

    def message(self) -> str:
        """Return the words of the next red message, and close it."""
        notice = self.page.locator(NOTICE).last
        notice.wait_for()
        text = notice.inner_text()
        notice.locator("[class*=notice-close]").first.click()
        notice.wait_for(state="detached")
        return re.sub(r"\s+", " ", text).strip()

    @contextmanager
    def follow(self, link: str) -> Iterator[Page]:
        """Press a link of the card, which opens another page."""
        with self.page.context.expect_page() as opened:
            self.link(link).click()
        opened.value.set_default_timeout(SECONDS * 1000)
        yield opened.value
        opened.value.close()

    def link(self, words: str) -> Locator:
        """A link of the card."""
        return self.card.get_by_role("link", name=words, exact=True)

    def photograph(self, path: Path, height: int) -> None:
        """Write a picture of the page, without the assistant that MLflow opens beside it."""
        self.page.set_viewport_size({"width": 1180, "height": height})
        close = self.page.get_by_role("button", name="Close")
        if close.count():
            close.last.click()
        self.page.screenshot(path=path)


def signed_in(context: BrowserContext, url: str) -> VersionPage:
    """Return a page that notes every dialog and every request to somewhere else."""
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    shown = VersionPage(page, url)

    def dialog(opened: Any) -> None:
        shown.dialogs.append(opened.message)
        opened.dismiss()

    def request(sent: Any) -> None:
        if not sent.url.startswith((url, "data:", "blob:", "about:")):
            shown.foreign.append(sent.url)

    page.on("dialog", dialog)
    page.on("request", request)
    return shown
