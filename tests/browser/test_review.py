"""A reviewer at work in the registry's page: reads the card, sets one tag, the adapter serves.

And everybody else who tries by the same page is told in a sentence what to do instead.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.candidate import Candidate, born, creation, ok, prepare
from tests.waiting import until

MOVED_SECONDS = 60
"""On a machine that is busy with other tests; alone it takes a few."""

pytestmark = pytest.mark.usefixtures("chromium")  # before a server is started for nothing

WRITE = bool(os.environ.get("CLR_WRITE_DOCS"))
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "review.png"
LINKS = ["gate report", "Data Docs", "confusion matrix", "run"]
HOSTILE = "<img src=x onerror=alert(1)> **bold** [link](javascript:alert(2)) https://evil.example"
TASKS = {
    "violet-caps": (
        4,
        ("dark", "light"),
        "title: Violet caps on line 3\nowner: bottling\n"
        "business: {currency: EUR, items_per_year: 400000, error_cost: 0.8, engineer_hours: 16, "
        "current_error_rate: 0.06, "
        "hourly_rate: 90, label_cost_per_image: 0.2, compute_cost_per_hour: 1, "
        "maintenance_hours_per_month: 1, horizon_years: 3, discount_rate: 0.08}\n",
    ),
    "yellow-caps": (3, ("<b>dark", "<script>alert(3)"), f"title: '{HOSTILE}'\n"),
}


@dataclass(frozen=True)
class Candidates:
    """Versions that wait for a review.

    Attributes:
        violet: model and number of a version that a trainer onboarded.
        yellow: likewise; title and class names are written to run as scripts.
        carol: registered by somebody who is a reviewer too.
        crafted: registered over the wire, with a description that is written to run scripts.
    """

    violet: tuple[str, int]
    yellow: tuple[str, int]
    carol: Candidate
    crafted: tuple[str, int]


@pytest.fixture(scope="module")
def candidates(chromium, house, new_caps, tmp_path_factory):
    """Two tasks come in by `clr onboard`, as the trainer tess; see `Candidates`."""
    numbers = {}
    for name, (colour, labels, more) in TASKS.items():
        folder = new_caps(tmp_path_factory.mktemp("tasks") / name, colour, labels=labels)
        with (folder / "task.yaml").open("a", encoding="utf-8") as file:
            file.write(more)
        limits = {"CLR_GATE_MAX_LATENCY_RATIO": "2"} if WRITE else {}  # as it is outside of tests
        onboarded = house.clr("tess", "onboard", folder, "--json", **limits)
        assert onboarded.json["verdict"] == "passed", onboarded
        numbers[name] = onboarded.json["version"]
    made = prepare(house.call, "tess", "crafted")
    house.call("tess", "POST", "registered-models/create", {"name": "clr-crafted"})
    tags = [*born(made), {"key": "seen", "value": "<img src=x onerror=alert(4)>"}]
    words = "\n\n".join(
        ("Evil card", "<script>alert(6)</script>", "<img src=x onerror=alert(7)>",
         "<iframe srcdoc='<script>alert(8)</script>'></iframe>", "[go](javascript:alert(9))",
         "<a href='javascript:alert(10)' onclick=alert(11)>go</a>", "<svg onload=alert(12)>")
    )  # fmt: skip
    body = creation(made, "crafted", tags=tags, description=words)
    version = ok(house.call("tess", "POST", "model-versions/create", body))["model_version"]
    return Candidates(
        ("clr-violet-caps", numbers["violet-caps"]),
        ("clr-yellow-caps", numbers["yellow-caps"]),
        house.version("browsed", by="carol"),
        ("clr-crafted", int(version["version"])),
    )


def test_the_card_says_the_verdict_first_and_shows_every_earlier_task(sign_in, candidates):
    shown = sign_in("alice").show(*candidates.violet)
    words = shown.card.inner_text()
    assert words.split("\n")[0] == "✓ Passed the retention gate"
    assert re.search(r"Accuracy on 24 test images\s+[\d.]+ % \(95 %: [\d.]+ % to [\d.]+ %\)", words)
    for task in ("red-caps", "green-caps", "blue-caps"):
        row = shown.card.get_by_role("row").filter(has=shown.page.get_by_text(task, exact=True))
        assert re.search(r"[\d.]+ %\s+[\d.]+ %\s+identical\s+✓", row.inner_text())
    assert "Pays back in" in words
    assert shown.tag("review") == "pending"
    assert shown.tag("clr.verdict") == "passed"
    assert re.fullmatch(r"[01]\.\d+ \[[01]\.\d+, [01]\.\d+\]", shown.tag("clr.accuracy"))
    assert re.fullmatch(r"(\d+) of \1 earlier tasks kept", shown.tag("clr.retention"))
    if WRITE:
        PICTURE.parent.mkdir(exist_ok=True)
        shown.photograph(PICTURE, 1185)


def test_its_links_open_what_they_say(sign_in, candidates):
    shown = sign_in("alice").show(*candidates.violet)
    others = {name: shown.link(name).get_attribute("href") for name in LINKS[1:]}
    with shown.follow("gate report") as opened:
        frame = opened.frame_locator("iframe")
        frame.get_by_text("Retention gate: violet-caps").wait_for()
        opened.goto(f"{shown.url}/{others['Data Docs']}")
        opened.reload()
        frame.get_by_role("heading", name="Accepted").wait_for()
        opened.goto(f"{shown.url}/{others['confusion matrix']}")
        opened.reload()
        opened.locator("img[src^=blob]").first.wait_for(state="attached")
        opened.goto(f"{shown.url}/{others['run']}")
        opened.get_by_text("Registered models").first.wait_for()


@pytest.mark.parametrize(
    ("who", "try_it", "sentence"),
    [
        ("alice", lambda one: one.edit_tag("review", "maybe"), "takes `approved` or `rejected`"),
        ("alice", lambda one: one.edit_tag("clr.verdict", "passed!"), "stays as it is"),
        ("alice", lambda one: one.remove_tag("review"), "cannot be removed"),
        ("alice", lambda one: one.add_tag("Review", "approved"), "Did you mean `review`?"),
        ("alice", lambda one: one.promote_to("clr-red-caps"), "`review` to `approved`"),
        ("alice", lambda one: one.set_alias("champion"), "`review` to `approved`"),
        ("tess", lambda one: one.edit_tag("review", "approved"), "that is for its reviewers. Ask"),
    ],
    ids=[
        "a-wrong-word", "evidence", "removal", "a-look-alike",
        "promote-model", "alias-champion", "the-trainer",
    ],
)  # fmt: skip
def test_who_tries_something_else_is_told_what_to_do_instead(
    who, try_it, sentence, sign_in, candidates, house
):
    before = house.tags(*candidates.violet), house.aliases("clr-violet-caps")
    said = try_it(sign_in(who).show(*candidates.violet))
    assert sentence in said
    assert (house.tags(*candidates.violet), house.aliases("clr-violet-caps")) == before


def test_nobody_approves_what_they_registered_themselves(sign_in, candidates, house):
    shown = sign_in("carol").show(candidates.carol.model, candidates.carol.number)
    assert "four eyes" in shown.edit_tag("review", "approved")
    assert house.tags(candidates.carol.model, candidates.carol.number)["review"] == "pending"


def test_scripts_in_titles_classes_descriptions_and_tags_do_not_run(sign_in, candidates):
    shown = sign_in("alice").show(*candidates.yellow)
    words = shown.card.inner_text()
    assert "<img src=x onerror=alert(1)> **bold** [link](javascript:alert(2))" in words
    assert "2 classes: <b>dark, <script>alert(3)" in words
    assert [one.inner_text() for one in shown.card.get_by_role("link").all()] == LINKS
    shown.show(*candidates.crafted)
    assert "Evil card" in shown.card.inner_text()
    assert shown.tag("seen") == "<img src=x onerror=alert(4)>"
    for link in shown.card.locator("a").all():
        assert not (link.get_attribute("href") or "").startswith("javascript:")
    assert (
        shown.page.evaluate("document.querySelectorAll('iframe[srcdoc], svg[onload]').length") == 0
    )
    assert shown.dialogs == []


def test_a_page_from_elsewhere_cannot_act_for_a_reviewer(sign_in, candidates, house, neighbour):
    """It is on another port of this machine, which MLflow alone takes for its own."""
    shown = sign_in("alice").show(*candidates.violet)
    before, last = house.tags(*candidates.violet), len(house.entries())
    page = shown.page.context.new_page()
    page.goto(neighbour(house.url, *candidates.violet))
    assert until(lambda: page.title() == "asked")
    refused = until(lambda: [one for one in house.entries(last) if one.action == "refused"])
    page.close()
    assert house.tags(*candidates.violet) == before
    assert {one.actor for one in refused} == {"alice"}
    assert "do it on the registry's own page" in refused[-1].payload["sentence"]


@pytest.mark.parametrize(
    ("which", "word", "reason"),
    [("violet", "approved", ""), ("yellow", " Approved ", "I saw <b>them</b>.")],
    ids=["approved", "Approved-with-a-reason"],
)
def test_one_tag_set_in_the_page_and_the_adapter_serves(
    which, word, reason, sign_in, candidates, house, capsys
):
    model, number = getattr(candidates, which)
    release = house.aliases("clr-release")["champion"]
    shown = sign_in("alice").show(model, number)
    if reason:
        shown.write_new_tag_until_shown("review.reason", reason)
    shown.write_tag("review", word)
    start = time.monotonic()
    moved = until(lambda: house.aliases(model).get("champion") == number, MOVED_SECONDS)
    assert moved, house.log.read_text()[-4000:]
    took = time.monotonic() - start
    with capsys.disabled():
        print(f"\n{took:.1f} s from the tag {which} set in the page to its champion moved")
    assert until(lambda: house.aliases("clr-release")["champion"] > release, 10)
    assert house.tags(model, number)["review"] == "approved"
    shown.show(model, number, anew=True)
    shown.page.get_by_text("@ champion").first.wait_for()
    assert shown.row("review.reason").count() == 0 or shown.tag("review.reason") == reason
    assert shown.tag("review") == "approved"
    assert shown.tag("clr.reviewed_by") == "alice"
    assert shown.dialogs == []
    assert shown.foreign == []
