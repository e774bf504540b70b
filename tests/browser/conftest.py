"""A real browser: the machine's own Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.browser.pages import VersionPage, signed_in

NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
REQUIRED = "CLR_REQUIRE_BROWSER"


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser; without one these tests are skipped, or fail where it is required."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        reason = f"no browser on this machine (looked for {', '.join(NAMES)})"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{reason}, and {REQUIRED}=1 wants one")
        pytest.skip(reason)
    return found


ASKING = """<!doctype html><title>asking</title><script>
const approve = mode => fetch("%s/ajax-api/2.0/mlflow/model-versions/set-tag", {
  method: "POST", mode: mode, credentials: "include",
  headers: mode == "cors" ? {"Content-Type": "application/json"} : {},
  body: JSON.stringify({name: "%s", version: "%d", key: "review", value: "approved"}),
}).catch(() => 0);
Promise.all([approve("cors"), approve("no-cors")]).then(() => document.title = "asked");
</script>"""


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[Callable[[str, str, int], str]]:
    """Function (url, model, number) -> address of a page that approves a version by itself."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def write(url: str, model: str, number: int) -> str:
            (tmp_path / "index.html").write_text(ASKING % (url, model, number), encoding="utf-8")
            return f"http://127.0.0.1:{server.server_port}/"

        yield write
        server.shutdown()


@pytest.fixture(scope="module")
def sign_in(chromium: str, house: Any, candidates: Any) -> Iterator[Callable[[str], VersionPage]]:
    """Function (user) -> a page of somebody who is signed in; one window for each user.

    `candidates` come first: Playwright keeps an event loop running in this thread, beside
    which no Prefect flow can run.
    """
    from playwright.sync_api import sync_playwright

    pages: dict[str, VersionPage] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))

        def open_page(user: str) -> VersionPage:
            if user not in pages:
                login = {"username": user, "password": house.passwords[user]}
                pages[user] = signed_in(browser.new_context(http_credentials=login), house.url)
            return pages[user]

        yield open_page
        browser.close()
