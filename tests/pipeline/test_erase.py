"""A person asked to be forgotten: nothing of the name is left, and everything still verifies."""

from __future__ import annotations

import getpass
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from clr.registry.server.forget import ERASED_WORDS, forgotten

KEEPER = {"LOGNAME": "the.keeper"}
WHY = ("--reason", "asked on 3 March, ticket 17")
PERSON = "erased person 1a2b3c4d"


def tags(plant: Any, key: str) -> set[str]:
    with closing(sqlite3.connect(plant.state / "mlflow.db")) as database:
        query = "SELECT value FROM model_version_tags WHERE key = ?"
        return {value for (value,) in database.execute(query, (key,))}


def test_who_made_and_approved_everything_is_forgotten(working: Any) -> None:
    answer = working.clr("erase", getpass.getuser(), *WHY, "--yes", "--json", **KEEPER)
    assert answer.code == 0, answer
    person = answer.json["person"]
    assert tags(working, "clr.reviewed_by") == {person}
    assert tags(working, "review.reason") == {ERASED_WORDS}
    entries = list(working.session().ledger.entries())
    assert {one.actor for one in entries[:-1]} == {person}
    assert (entries[-1].action, entries[-1].actor) == ("person.erased", "the.keeper")
    verified = working.clr("verify", "--json", **KEEPER)
    assert (verified.code, verified.json["problems"]) == (0, []), verified
    assert working.clr("rollback", "--reason", "to see", **KEEPER).code == 0


def test_a_name_and_its_words_are_in_no_byte_of_the_ledger(working: Any) -> None:
    reason = ("--reason", "the line of carol.jones was sold")
    assert working.clr("retire", "blue-caps", *reason, LOGNAME="carol.jones").code == 0
    answer = working.clr("erase", "carol.jones", *WHY, "--yes", "--json", **KEEPER)
    assert (answer.code, answer.json["left"]) == (0, {}), answer
    for file in (working.state / "ledger").iterdir():
        assert b"carol" not in file.read_bytes(), file
    assert working.clr("verify", **KEEPER).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nobody", *WHY, "--yes"), "Nobody here is called 'nobody'"),
        (("the.keeper", *WHY, "--yes"), "who runs this command"),
        (("clr-release", *WHY, "--yes"), "service"),
        (("carol", "--reason", "Carol asked", "--yes"), "names the person"),
        (("carol", *WHY), "Add --yes"),
    ],
)
def test_what_cannot_be_erased_is_said(plant: Any, arguments: tuple[str, ...], said: str) -> None:
    answer = plant.clr("erase", *arguments, **KEEPER)
    assert answer.code == 2
    assert said in " ".join(answer.err.split())


def test_it_is_done_on_the_machine_of_the_server(plant: Any) -> None:
    elsewhere = {"CLR_REGISTRY_URL": "http://127.0.0.1:9"}
    answer = plant.clr("erase", "carol", *WHY, "--yes", **KEEPER, **elsewhere)
    assert (answer.code, "Run this on that machine" in answer.err) == (2, True), answer


@pytest.mark.parametrize(
    ("key", "value", "after"),
    [
        ("clr.created_by", "ann", PERSON),
        ("clr.created_by", "ann.lee", "ann.lee"),
        ("clr.reviewed_by", "ann.lee, ann, joann", f"ann.lee, {PERSON}, joann"),
        ("clr.approvals", "1 of 2: ann", f"1 of 2: {PERSON}"),
        ("clr.promotion", "rejected by ann: blurred", f"rejected by {PERSON}: {ERASED_WORDS}"),
        ("clr.promotion", "rejected by bob: blurred", "rejected by bob: blurred"),
        ("review.reason", "seen", ERASED_WORDS),
        ("review.reason", "as Ann says", ERASED_WORDS),
        ("review.reason", "of another", "of another"),
    ],
)
def test_what_a_tag_says_afterwards(key: str, value: str, after: str) -> None:
    assert forgotten(key, value, "ann", PERSON, {"seen"}) == after
