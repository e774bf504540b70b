"""The dashboard of a real server: what it shows, to whom, and under which policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from clr.serving.dashboard.page import field, policy, style
from clr.serving.dashboard.plots import plot
from clr.serving.keys import add_key, keys_path, make_key
from tests.serving import dashboards
from tests.serving.plants import copied

NOW = datetime(2027, 3, 20, tzinfo=UTC)


@pytest.fixture(scope="module")
def filled(served: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A workspace with half a year of answers behind it."""
    made = copied(served, tmp_path_factory.mktemp("dashboard") / "plant")
    dashboards.fill(made, NOW)
    return made


@pytest.fixture(scope="module")
def keys(filled: Any) -> dict[str, str]:
    """Keys as they are written, by name."""
    found: dict[str, str] = {}
    now = datetime.now(UTC)
    for name, scope, tasks in (
        ("watcher", "metrics", ()), ("owner", "admin", ()), ("line", "predict", ()),
        ("green", "metrics", ("green",)),
    ):  # fmt: skip
        key, found[name] = make_key(name, (scope,), tasks, "", now)
        add_key(keys_path(filled.state), key, now)
    return found


@pytest.fixture(scope="module")
def url(filled: Any, keys: dict[str, str]) -> Iterator[str]:
    with dashboards.running(filled.settings(serve_keys=True)) as address:
        yield address


def get(url: str, path: str, key: str = "", **headers: str) -> httpx.Response:
    with closing(httpx.Client(trust_env=False, timeout=60)) as client:
        sent = {"Authorization": f"Bearer {key}"} if key else {}
        return client.get(url + path, headers={**sent, **headers})


def text(page: str) -> str:
    """What a page says, without tags."""
    plain = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", plain.replace("\u00a0", " "))


# --- what it shows


def test_the_overview_has_a_row_for_each_task(url: str, keys: dict[str, str]) -> None:
    page = get(url, "/dashboard", keys["watcher"])
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    shown = text(page.text)
    assert "Release 2 serves 3 tasks" in shown
    for task in ("red", "green", "blue"):
        assert f'href="/dashboard/{task}"' in page.text
    assert "as sent, not random" in shown
    assert "release activated release 2, blue 1, green 1, red 1 rita" in shown


def test_a_task_has_months_money_versions_and_upkeep(url: str, keys: dict[str, str]) -> None:
    page = get(url, "/dashboard/red", keys["watcher"]).text
    shown = text(page)
    for title in ("Items a month", "Error rate, 95 % interval", "Defect rate", "Incidents"):
        assert title in shown
    assert "not a random sample" in shown
    assert "Camera moved" in shown
    assert "clr audit red@1" in shown
    assert re.search(r"items per year .*? derived assumed before: 20,000", shown)
    assert re.search(r"error cost 9 EUR/error assumed", shown)


def test_figures_are_those_of_the_command(url: str, keys: dict[str, str], filled: Any) -> None:
    from clr.audit.ledger import open_ledger
    from clr.serving.production import read_production
    from clr.serving.upkeep import read_upkeep

    total = read_production(filled.state, read_upkeep(open_ledger(filled.state)))["red"].total
    shown = text(get(url, "/dashboard/red", keys["watcher"]).text)
    assert f"Items {total.items:,} in" in shown
    assert f"{total.wrong} wrong of {total.labelled} labelled" in shown


def test_a_task_without_answers_has_a_page_too(url: str, keys: dict[str, str]) -> None:
    page = get(url, "/dashboard/blue", keys["watcher"])
    assert page.status_code == 200
    assert "Nothing was answered yet" in page.text


def test_every_plot_has_title_and_description(url: str, keys: dict[str, str]) -> None:
    page = get(url, "/dashboard/red", keys["watcher"]).text
    plots = re.findall(r'<svg class="plot" role="img" aria-labelledby="(\S+) (\S+)"', page)
    assert len(plots) >= 6
    for title, described in plots:
        assert re.search(rf'<title id="{title}">.+?</title>', page)
        assert re.search(rf'<desc id="{described}">\d{{4}}-\d\d: .+?</desc>', page)
    assert len({one for pair in plots for one in pair}) == 2 * len(plots)


def test_drift_is_told_of_the_version_that_serves_alone(filled: Any) -> None:
    from clr.core.files import canonical_json
    from clr.serving.dashboard.facts import Reader
    from clr.serving.dashboard.page import overview, task_page
    from clr.serving.drift import drift_path
    from clr.serving.values import Health

    def found(version: int, alarm: float | None) -> dict[str, Any]:
        stream = {"values": 1200, "capital": 3.0, "limit": 100.0, "alarm": None}
        return {"version": version, "adapter": "sha256:", "features": {**stream, "alarm": alarm},
                "confidence": stream}  # fmt: skip

    told = {"red": found(1, NOW.timestamp()), "green": found(1, None), "blue": found(7, 1.0)}
    path = drift_path(filled.state)
    before = path.read_bytes() if path.exists() else b"{}"
    path.write_bytes(canonical_json(told))
    facts, health = Reader(filled.settings()).facts(), Health(True, "serving", 2)
    path.write_bytes(before)
    assert facts.tasks["red"].drift["features"]["alarm"] == "2027-03-20T00:00:00+00:00"
    assert facts.tasks["blue"].drift == {}
    assert "features since 2027-03-20" in text(overview(facts, health))
    assert "The features of images drifted" in text(task_page(facts, health, facts.tasks["red"]))
    green = text(task_page(facts, health, facts.tasks["green"]))
    assert "No drift of confidence in 1,200 images" in green


# --- who sees it


def test_who_shows_no_key_is_asked_for_one(url: str) -> None:
    for path in ("/dashboard", "/dashboard/red"):
        answer = get(url, path, Accept="text/html")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert "red" not in answer.text


def test_a_browser_sends_the_key_as_a_password(url: str, keys: dict[str, str]) -> None:
    with closing(httpx.Client(trust_env=False, timeout=60)) as client:
        answer = client.get(f"{url}/dashboard", auth=("anybody", keys["watcher"]))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("name", "status"), [("watcher", 200), ("owner", 200), ("line", 403), ("green", 200)]
)
def test_the_scope_decides(name: str, status: int, url: str, keys: dict[str, str]) -> None:
    assert get(url, "/dashboard", keys[name]).status_code == status


def test_a_key_of_one_task_sees_that_task_alone(url: str, keys: dict[str, str]) -> None:
    page = get(url, "/dashboard", keys["green"]).text
    assert 'href="/dashboard/green"' in page
    assert 'href="/dashboard/red"' not in page
    assert get(url, "/dashboard/green", keys["green"]).status_code == 200
    assert get(url, "/dashboard/red", keys["green"]).status_code == 403


def test_no_page_of_a_limited_key_names_another_task_or_says_its_words() -> None:
    from clr.serving.dashboard.facts import Facts, Task
    from clr.serving.dashboard.page import overview, task_page
    from clr.serving.values import Health

    green = Task("green", champion=1)
    secret = "secret-part: camera of line 9"
    act = {"time": NOW.isoformat(), "act": "release rollback", "what": "release 3, secret-part 7",
           "by": "rita", "reason": secret, "entry": 4}  # fmt: skip
    facts = Facts(
        NOW.isoformat(), {"green": green, "secret-part": Task("secret-part", champion=7)}, (act,),
        problems=(secret, f"Ledger: {secret}", "green: its roi.json is gone"),
    )  # fmt: skip
    health = Health(
        True, "serving", 3, tasks=("green", "secret-part"), refused={"secret-part": secret},
        routing=secret, registry=secret, journal=secret,
    )  # fmt: skip
    for show in (
        lambda *allowed: overview(facts, health, *allowed),
        lambda *allowed: task_page(facts, health, green, *allowed),
    ):
        page = show(("green",))
        assert "green: its roi.json is gone" in page
        assert "Ledger cannot be read now." in page
        assert "secret-part" not in page
        assert "line 9" not in page
        assert "secret-part" in show()
    assert "Release 3 serves 1 task" in text(overview(facts, health, ("green",)))
    assert "What changed" not in overview(facts, health, ("green",))


@pytest.mark.parametrize("name", ["purple", "..%2f..%2fetc", "%3Cscript%3E", "a" * 300])
def test_another_name_is_not_found_and_never_html(
    name: str, url: str, keys: dict[str, str]
) -> None:
    answer = get(url, f"/dashboard/{name}", keys["watcher"])
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"


# --- how it is served


def test_the_policy_allows_its_own_style_sheet_and_nothing_else(
    url: str, keys: dict[str, str]
) -> None:
    import base64
    import hashlib

    for path in ("/dashboard", "/dashboard/red"):
        answer = get(url, path, keys["watcher"])
        given = answer.headers["content-security-policy"]
        (sheet,) = re.findall(r"<style>(.*?)</style>", answer.text, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
        assert given == policy()
        assert f"style-src 'sha256-{digest}'" in given
        assert "default-src 'none'" in given
        assert "unsafe" not in given
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script|<link|<img|<iframe|style=|@import|url\(", answer.text)
    assert "prefers-color-scheme:dark" in style()


def test_without_the_registry_the_journal_is_shown(filled: Any) -> None:
    from clr.serving.dashboard.facts import Reader

    settings = filled.settings(registry_url="http://rita:secret@127.0.0.1:9")
    facts = Reader(settings).facts()
    assert "secret" not in repr(facts)  # its address is in every link of the pages
    assert [one for one in facts.problems if one.startswith("Registry: ")]
    assert facts.tasks["red"].told["total"]["items"]["value"] > 1000
    assert facts.tasks["red"].champion == 0


def test_a_journal_that_cannot_be_read_is_named(own: Any) -> None:
    from clr.serving.dashboard.facts import Reader
    from clr.serving.journal import journal_path

    path = journal_path(own.state)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no database " * 512)
    facts = Reader(own.settings()).facts()
    (problem,) = facts.problems
    assert problem.startswith(f"Journal: The journal {path} cannot be read: ")
    assert facts.tasks["red"].champion


# --- its parts


def test_a_business_case_that_is_damaged_is_named_and_the_rest_is_shown(own: Any) -> None:
    from clr.serving.dashboard.facts import Reader

    for path in own.state.rglob("roi.json"):
        path.write_text("{")
    facts = Reader(own.settings()).facts()
    assert sorted(one.partition(":")[0] for one in facts.problems) == sorted(facts.tasks)
    assert all(one.champion and not one.case for one in facts.tasks.values())


@pytest.mark.parametrize(
    ("state", "headline"),
    [("serving", "Nothing is served"), ("starting", "Nothing is served: starting")],
)
def test_a_server_that_is_not_ready_says_so_first(state: Any, headline: str) -> None:
    from clr.serving.dashboard.facts import Facts
    from clr.serving.dashboard.page import overview
    from clr.serving.values import Health

    health = Health(False, state, 2, refused={"red": "damaged"})
    assert f"<h1>{headline}</h1>" in overview(Facts(at="2027-03-20T00:00:00+00:00"), health)


def test_a_plot_without_values_says_so() -> None:
    drawn = plot("items", "Items", [("2027-01", None, None, None)], form="bars")
    assert "2027-01: not known" in drawn
    assert "<rect" not in drawn


def test_a_plot_escapes_and_draws_intervals() -> None:
    rows = [("2027-01", 0.01, 0.02, 0.05), ("2027-02", 0.02, 0.03, 0.04)]
    drawn = plot("error", "Errors <b>", rows, form="dots", percent=True)
    assert "<b>" not in drawn
    assert drawn.count('class="span"') == 2
    assert "2027-01: 2%; 2027-02: 3%" in drawn


@pytest.mark.parametrize(
    ("one", "shown"),
    [
        (None, "–"),
        ({"unit": "share", "value": 0.0725}, "7.2 %"),
        ({"unit": "months", "low": None, "middle": None, "high": 3.0}, "never"),
        ({"unit": "EUR", "value": -12345.6}, "−12,346"),
        ({"unit": "ms", "value": 20.0}, "20 ms"),
        ({"unit": "labels", "value": ["crack", "ok"]}, "crack, ok"),
    ],
)
def test_a_field_as_people_read_it(one: Any, shown: str) -> None:
    assert field(one).replace("\u00a0", " ") == shown
