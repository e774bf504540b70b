"""The samples of docs/samples, made by the real commands in a workspace of a few pictures.

``python -m tests.samples audit`` makes them anew in minutes: times and digests are those of the
day, so all of ``audit.json`` changes. ``python -m tests.samples page`` writes ``audit.html`` again
from the ``audit.json`` that is there; tests/audit/test_page.py sees that the two agree.
``python -m tests.samples pictures`` photographs that page with the machine's Chromium,
``python -m tests.samples pilot`` the page of a pilot with the made-up figures of its tests,
``python -m tests.samples dashboard`` the dashboard of a server, with those of its tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

SAMPLES = Path(__file__).parents[1] / "docs" / "samples"
CLR = Path(sys.executable).with_name("clr")


def page() -> None:
    """Write the page again."""
    from clr.audit.page import render

    document = json.loads((SAMPLES / "audit.json").read_text(encoding="utf-8"))
    (SAMPLES / "audit.html").write_text(render(document), encoding="utf-8")


def pictures() -> None:
    """Photograph the upper part of the page, as on a desk and as on a phone."""
    address = (SAMPLES / "audit.html").as_uri()
    photographs((("audit", address, 1180, 1010), ("audit-phone", address, 375, 1150)))


def pilot() -> None:
    """Photograph the page of a pilot in both languages; Japanese needs a font that has it."""
    from clr.pilot.page import render
    from tests.pilot.documents import LINE, document

    with tempfile.TemporaryDirectory() as folder:
        shots = []
        for language in ("en", "ja"):
            path = Path(folder, f"{language}.html")
            title = {"en": "Solder joints", "ja": "はんだ付け検査"}[language]
            told = document(line=LINE, title=title)
            path.write_text(render(told, language), encoding="utf-8")
            name = {"en": "pilot", "ja": "pilot-ja"}[language]
            shots.append((name, path.as_uri(), 1000, 960))
        photographs(shots)


def dashboard() -> None:
    """Photograph the dashboard, as on a desk and as on a phone."""
    # first of all, since it tells the libraries to stay quiet
    from tests.conftest import templates  # isort: split

    from tests.serving import dashboards
    from tests.serving.plants import build

    templates.migrate_once()
    with tempfile.TemporaryDirectory() as folder:
        made = build(Path(folder, "plant"))
        dashboards.fill(made, datetime.now(UTC))
        with dashboards.running(made.settings(serve_keys=False)) as url:
            photographs(
                (
                    ("dashboard", f"{url}/dashboard", 1180, 780),
                    ("dashboard-task", f"{url}/dashboard/red", 1180, 1000),
                    ("dashboard-phone", f"{url}/dashboard/red", 375, 1150),
                )
            )


def photographs(shots: Iterable[tuple[str, str, int, int]]) -> None:
    """Photograph pages into docs/images.

    Args:
        shots: name, address, width and height of each.
    """
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import FLAGS, NAMES

    browsers = filter(None, map(shutil.which, NAMES))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(browsers), args=list(FLAGS))
        for name, address, width, height in shots:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(address)
            page.screenshot(path=SAMPLES.parent / "images" / f"{name}.png")
        browser.close()


def audit() -> None:
    """Make three tasks, a second version of the first, a rollback; then audit that version."""
    # first of all, since it tells the libraries to stay quiet
    from tests.conftest import COLOURS  # isort: split

    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    # one fixed name, since documents tell where DVC's remote is
    folder = Path(tempfile.gettempdir()) / "clr-sample"
    folder.mkdir()
    try:
        with prefect_test_harness(server_startup_timeout=600):
            told = _history(folder, str(PREFECT_API_URL.value()), COLOURS)
        SAMPLES.mkdir(exist_ok=True)
        (SAMPLES / "audit.json").write_text(told, encoding="utf-8")
    finally:
        shutil.rmtree(folder)
    page()


def _history(folder: Path, prefect: str, tasks: Mapping[str, int]) -> str:
    """Let three people work in a new workspace; return the auditor's answer."""
    from tests.conftest import make_task

    plant, again = folder / "plant", "red-caps"

    def run(user: str, *arguments: object, place: Path = plant) -> str:
        print(user, *arguments, file=sys.stderr)
        # a forward pass of pictures of 32 x 32 pixels says nothing about latency
        limits = {"CLR_DEVICE": "cpu", "CLR_THREADS": "1", "CLR_GATE_MAX_LATENCY_RATIO": "1000"}
        settings = {**os.environ, **limits, "LOGNAME": user, "PREFECT_API_URL": prefect}
        command = [str(CLR), *map(str, arguments)]
        return subprocess.run(
            command, cwd=place, env=settings, stdout=subprocess.PIPE, check=True, text=True
        ).stdout

    run("tom", "init", plant, place=folder)
    for name, colour in tasks.items():
        _commit(plant)
        run("tom", "onboard", make_task(folder / "first" / name, colour, epochs=8))
        run("rita", "review", name, 1, "approve", "--reason", "every cap was found")
    _commit(plant)
    run("tom", "onboard", make_task(folder / "second" / again, tasks[again], seed=1, epochs=8))
    run("rita", "review", again, 2, "approve", "--reason", "the new lamp's pictures")
    run("otto", "rollback", "--reason", "the new lamp was taken down again")
    return run("vera", "audit", f"{again}@2", "--json")


def _commit(plant: Path) -> None:
    git = ["git", "-c", "user.name=tom", "-c", "user.email=tom@example.com"]
    subprocess.run([*git, "add", "--all"], cwd=plant, check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "data"], cwd=plant, check=True)


if __name__ == "__main__":
    {one.__name__: one for one in (audit, page, pictures, pilot, dashboard)}[sys.argv[1]]()
