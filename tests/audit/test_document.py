"""The document of an audit: its published form, and the chain that every picture is drawn from."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from clr.audit.document import LINKS, arrows, check, named, nodes, periods, schema
from clr.errors import UsageError
from tests.audit.documents import document, old, sha256


def test_the_schema_is_one():
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("made", [document(), old()], ids=["whole", "of an older version"])
def test_documents_have_the_published_form(made):
    check(made)


@pytest.mark.parametrize(
    ("section", "field", "value", "place"),
    [
        ("data", "digest", "md5:1", "$.data.digest"),
        ("asked", "time", "yesterday", "$.asked.time"),
        ("adapter", "opinion", "good", "$.adapter"),
        ("gate", "verdict", "perhaps", "$.gate.verdict"),
    ],
)
def test_another_form_is_refused_by_its_place(section, field, value, place):
    made = document()
    made[section][field] = value
    with pytest.raises(UsageError, match="Not a document") as refused:
        check(made)
    assert place in refused.value.message


def test_a_missing_field_is_refused_although_null_is_not():
    made = old()
    del made["data"]["commit"]
    with pytest.raises(UsageError, match="commit"):
        check(made)


def test_the_chain_has_every_link_in_order_and_each_digest():
    chain = nodes(document())
    order = [one.link for one in chain]
    assert order == sorted(order, key=list(LINKS).index)
    assert set(LINKS) - set(order) == {"replacement", "ledger"}
    digests = {one.id: one.digest for one in chain}
    assert digests["adapter"] == sha256("adapter")
    assert digests["release-15"] == sha256("release 5")
    assert not any(one.broken for one in chain)


def test_arrows_lead_from_the_images_to_the_release_and_never_back():
    made = document()
    place = {one.id: number for number, one in enumerate(nodes(made))}
    drawn = arrows(made)
    assert all(place[begin] < place[end] for begin, end in drawn)
    reached = {"images"}
    for begin, end in drawn:
        reached |= {end} if begin in reached else set()
    assert reached >= {"training", "adapter", "gate", "review-14", "release-15"}
    assert {end for begin, end in drawn if begin in ("code", "environment", "backbone")} == {
        "training"
    }


def test_a_problem_marks_its_link():
    made = document()
    made["verdict"]["problems"] = [
        {"link": "gate", "subject": "x", "kind": "changed", "message": "y", "fix": "z"}
    ]
    assert [one.id for one in nodes(made) if one.broken] == ["gate"]


def test_of_an_older_version_the_chain_is_whole_without_digests():
    chain = {one.id: one.digest for one in nodes(old())}
    assert chain["validation"] == ""
    assert set(LINKS) - set(chain) == {"reviews", "service", "replacement", "ledger"}
    assert ("registration", "release-1") not in arrows(old())


def served(*spans):
    """Releases with (number, begin, end)."""
    return [
        {
            **document()["service"][0],
            "release": number,
            "from": f"2026-01-0{begin}T00:00:00Z",
            "to": f"2026-01-0{end}T00:00:00Z" if end else None,
            "entry": number,
        }
        for number, begin, end in spans
    ]


def test_releases_that_followed_each_other_are_one_time_of_service():
    made = document()
    made["service"] = served((1, 1, 2), (2, 2, 3), (4, 5, None))
    assert [[one["release"] for one in spell] for spell in periods(made)] == [[1, 2], [4]]
    assert [one.title for one in nodes(made) if one.link == "service"] == [
        "Releases 1, 2",
        "Release 4",
    ]
    assert ("release-1", "release-4") in arrows(made)


def test_many_releases_are_called_by_the_first_and_the_last():
    spell = served(*((number, 1, 2) for number in range(1, 8)))
    assert named(spell) == "7 releases, 1 … 7"
