"""The page of an audit: all of the document is on it, and nothing breaks out of its place."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from clr.audit.document import check, nodes
from clr.audit.evidence import DIGEST, evidence
from clr.audit.page import LISTED_IMAGES, render
from tests.audit.documents import Document, document, old, sha256

SAMPLES = Path(__file__).parents[2] / "docs" / "samples"
VOID = {"meta", "br", "link", "img", "hr", "input"}
HOSTILE = "</style></title></svg>\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}"


class Page(HTMLParser):
    """A page as a browser takes it.

    Attributes:
        ids: of all elements, in order.
        links: (address, words) of all links.
        tags: names of all elements.
        attributes: names of all attributes.
        headings: levels of the headings, in order.
        words: the text that is shown.
        crossed: end tags that close something else than what is open.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.headings: list[int] = []
        self.words = ""
        self.crossed: list[str] = []
        self._open: list[tuple[str, str]] = []
        self._begun: list[int] = []
        self.feed(text)
        self.close()
        self.crossed += [tag for tag, _ in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.attributes |= found.keys()
        self.ids += [found["id"]] if found.get("id") else []
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self._open.append((tag, found.get("href") or ""))
            self._begun.append(len(self.words))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        opened, address = self._open.pop() if self._open else ("nothing", "")
        begun = self._begun.pop() if self._begun else 0
        if opened != tag:
            self.crossed.append(f"{tag} closes {opened}")
        if tag == "a":
            self.links.append((address, self.words[begun:]))

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1][0] not in ("style", "title", "desc"):
            self.words += data


def entry(seq: int, **payload: Any) -> Document:
    return {
        "seq": seq,
        "time": "2026-11-24T09:03:00.000000Z",
        "actor": "tom",
        "authentication": "mlflow-basic-auth",
        "action": "adapter.registered",
        "subject": "clr-animals/3",
        "payload": payload,
        "key": f"registered:{sha256('key')}",
        "previous": sha256(f"entry {seq - 1}"),
        "hash": sha256(f"entry {seq}"),
        "key_id": sha256("public key"),
        "signature": "c2lnbmF0dXJl",
    }


def full() -> Document:
    """A document with everything: entries, a head, a rejection, a rollback."""
    found = document()
    found["ledger"]["entries"] = [
        entry(12, adapter=sha256("adapter"), files={"gate/gate.json": sha256("gate")}),
        entry(14, policy=sha256("policy"), joined=[{"adapter": sha256("of another task")}]),
    ]
    head = {name: entry(41)[name] for name in ("seq", "hash", "key_id", "signature")}
    found["ledger"]["head"] = head
    found["reviews"].append({**found["reviews"][0], "entry": 16, "decision": "rejected"})
    found["service"][0]["to"] = "2026-11-24T12:00:02.000000Z"
    found["replaced_by"] = {
        "version": 2,
        "time": "2026-11-24T12:00:02.000000Z",
        "release": 4,
        "kind": "rollback",
        "entry": 17,
        "reason": "too many dogs",
    }
    return found


def broken(*links: str) -> Document:
    found = full()
    found["verdict"]["intact"] = False
    found["verdict"]["sentence"] = f"BROKEN at {links[0]}: it has other bytes: {sha256('seen')}."
    found["verdict"]["problems"] = [
        {
            "link": link,
            "subject": "data/animals/test/dog/b.png" if link == "images" else "clr-animals/3",
            "kind": "changed",
            "message": f"The {link} has other bytes: {sha256('seen')}.",
            "fix": "Bring it back.",
        }
        for link in links
    ]
    return found


def digests(value: Any) -> set[str]:
    return set(DIGEST.findall(json.dumps(value)))


@pytest.mark.parametrize(
    "made", [document, old, full, lambda: broken("data", "adapter", "ledger")],
    ids=["document", "old", "full", "broken"],
)  # fmt: skip
def test_every_link_leads_to_something_and_every_digest_is_one(made: Any) -> None:
    found = made()
    page = Page(render(found))
    assert page.crossed == []
    assert len(set(page.ids)) == len(page.ids)
    assert {address for address, _ in page.links} <= {f"#{one}" for one in page.ids}
    linked = {digest for _, words in page.links for digest in DIGEST.findall(words)}
    assert digests(found) <= linked
    assert {one.id for one in nodes(found)} <= set(page.ids)


def test_a_digest_leads_to_what_shows_it() -> None:
    links = {words: address for address, words in Page(render(full())).links}
    assert links[sha256("adapter")] == "#adapter"
    assert links[sha256("retention digits")] == "#check-2"
    assert links[sha256("release 5")] == "#release-15"
    assert links[sha256("entry 12")] == "#entry-12"
    assert links[sha256("b")] == "#image-2"
    assert links[sha256("policy")].startswith("#digest-")


def test_each_digest_says_how_it_is_computed_anew() -> None:
    found = full()
    found["backbone"]["sha256"], found["backbone"]["name"] = sha256("file"), "file:/a b/$(x)"
    known = evidence(found)
    run = found["training"]["run_id"]
    assert known[sha256("gate")].command == (
        f'sha256sum "$(mlflow artifacts download -r {run} -a gate/gate.json | tail -1)"'
    )
    assert known[sha256("file")].command == "sha256sum '/a b/$(x)'"
    assert known["md5:" + "1" * 32 + ".dir"].command == (
        f'md5sum "$(dvc cache dir)/files/md5/11/{"1" * 30}.dir"'
    )
    words = Page(render(found)).words
    assert all(one.command in words for one in known.values())


def test_what_is_no_digest_comes_into_no_command() -> None:
    """A registration says what it likes of its data, and people paste the commands of the page."""
    found = full()
    found["data"]["digest"] = "md5:$(touch harmed).dir"
    assert not [one for one in evidence(found).values() if "touch harmed" in one.command]


@pytest.mark.parametrize(
    ("made", "sign"), [(full, "✓"), (lambda: broken("gate", "service"), "✕")],
    ids=["intact", "broken"],
)  # fmt: skip
def test_the_verdict_is_the_first_line(made: Any, sign: str) -> None:
    found = made()
    sentence = re.sub(r"([0-9a-f]{12})[0-9a-f]{52}", r"\1…", found["verdict"]["sentence"])
    first = " ".join(Page(render(found)).words.split())
    assert first.startswith(f"{sign} {sentence} ")


def test_what_is_broken_is_marked_in_the_picture_in_its_section_and_in_words() -> None:
    text = render(broken("images", "gate", "ledger"))
    for link in ("images", "gate", "ledger"):
        assert f'<a href="#{link}" class="node {link} broken">' in text
        section = text.partition(f'<section id="{link}">')[2].partition("</h2>")[0]
        assert "Broken" in section
    assert '<a href="#data" class="node data sound">' in text
    assert "Broken: Image files, Retention gate, Ledger." in text
    links = Page(text).links
    assert ("#image-1", "see it") in links  # the file itself, which is listed first
    assert ("#gate", "see it") in links


def test_an_intact_chain_has_no_broken_mark() -> None:
    text = render(full())
    assert "broken</text>" not in text
    assert "✕ BROKEN" not in text


def test_hostile_words_stay_words() -> None:
    found = broken("images")
    for place in (found, found["asked"], found["registration"], found["replaced_by"]):
        for name in ("title", "by", "actor", "authentication", "reason", "subject"):
            if name in place:
                place[name] = HOSTILE
    found["verdict"]["problems"][0]["message"] = HOSTILE
    found["verdict"]["notes"] = [{"subject": HOSTILE, "message": HOSTILE}]
    found["data"]["images"][0] |= {"path": HOSTILE, "class": HOSTILE}
    found["data"]["classes"] = [HOSTILE]
    found["validation"]["warnings"] = [HOSTILE]
    found["training"]["recipe"] = {HOSTILE: HOSTILE}
    found["backbone"]["name"] = HOSTILE
    found["gate"]["retention"][0]["task"] = HOSTILE
    found["gate"]["checks"][0] |= {"name": HOSTILE, "message": HOSTILE}
    found["reviews"][0] |= {"reviewer": HOSTILE, "reason": HOSTILE}
    found["ledger"]["entries"][0] |= {"actor": HOSTILE, "payload": {HOSTILE: HOSTILE}}
    found["adapter"]["digest"] = HOSTILE
    found["registry"]["address"] = "javascript:alert(1)"
    page, harmless = Page(render(found)), Page(render(broken("images")))
    assert page.crossed == []
    assert set(page.tags) <= set(harmless.tags)
    assert page.attributes <= harmless.attributes
    assert page.words.count(HOSTILE) > 15
    assert all(address.startswith("#") for address, _ in page.links)


def test_the_page_loads_and_runs_nothing() -> None:
    found = full()
    found["registry"]["address"] = "https://registry.example"
    text = render(found)
    page = Page(text)
    assert "default-src 'none'" in text
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert not {"src", "onclick", "srcset"} & page.attributes
    assert "@import" not in text
    assert {one for one, _ in page.links if not one.startswith("#")} == {"https://registry.example"}


def test_headings_go_down_by_one_and_the_picture_has_a_title_and_words() -> None:
    page = Page(render(full()))
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    for name in ("graph-title", "graph-desc", "chain-title", "chain-desc"):
        assert name in page.ids


def test_very_many_images_are_listed_in_part_those_with_a_problem_first() -> None:
    found = broken("images")
    wrong = found["data"]["images"][1]
    found["data"]["images"] = [
        {**wrong, "path": f"train/cat/{number}.png", "sha256": sha256(f"image {number}")}
        for number in range(LISTED_IMAGES + 5)
    ] + [wrong]
    page = Page(render(found))
    assert ("#image-1", wrong["sha256"]) in page.links
    assert f"image-{LISTED_IMAGES}" in page.ids
    assert f"image-{LISTED_IMAGES + 1}" not in page.ids
    assert re.search(r"\b6 more are in the JSON form", page.words)


def test_names_in_an_entry_are_shown_beside_the_refs_that_its_hash_covers() -> None:
    found = full()
    one = found["ledger"]["entries"][0]
    ref, payload = f"person:{'a' * 64}", json.dumps(one["payload"], separators=(",", ":"))
    one["stored"] = {
        "actor": ref,
        "subject": one["subject"],
        "payload": payload,
        "key": one["key"],
    }
    words = Page(render(found)).words
    assert f"Hashed as actor{ref}" in words
    assert words.count("Hashed as") == 1
    one["stored"]["payload"] = payload.replace(sha256("gate"), f"words:{'b' * 64}")
    assert "Hashed as payload{" in Page(render(found)).words


def test_images_that_the_answer_leaves_out_are_said_to_be() -> None:
    found = document()
    found["data"]["images"] = None
    assert "The files are not listed in this answer." in Page(render(found)).words


def test_the_sample_is_the_page_of_its_own_json() -> None:
    kept = json.loads((SAMPLES / "audit.json").read_text(encoding="utf-8"))
    check(kept)
    assert (SAMPLES / "audit.html").read_text(encoding="utf-8") == render(kept), (
        "python -m tests.samples page"
    )
