"""Names and words are kept beside the rows: read as ever, changed by nobody, erased for good."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.audit import chain, personal
from clr.audit.ledger import open_ledger
from clr.errors import UsageError

ALICE, BOB = "alice.liddell", "bob-the-builder"
GUARDED, ADMIN = "mlflow-basic-auth", {"actor": "root", "authentication": "local-os-user"}
GROUND = "asked on 3 March, ticket 17"
KEY = f"review:clr-animals/1:{chain.ACTOR}:approved"


def approve(ledger, who=ALICE, reason="seen, good", key=KEY):
    return ledger.append(
        "review.approved",
        "clr-animals/1",
        {"adapter": "sha256:ab", "reason": reason},
        actor=who,
        authentication=GUARDED,
        key=key,
    )


@pytest.fixture
def told(ledger):
    """A ledger in which two people are named in every way that there is."""
    ledger.append("user.added", ALICE, {"roles": ["reviewer"]}, **ADMIN)
    ledger.append("user.added", BOB, {"roles": ["trainer"]}, **ADMIN)
    sentence = f"{BOB} may not review. Ask {ALICE}."
    about = {"kind": "version.set-tag", "value": "approved", "sentence": sentence}
    ledger.append("refused", "clr-animals/1", about, actor=BOB, authentication=GUARDED)
    approve(ledger)
    joined = [{"task": "animals", "reviewers": [{"reviewer": ALICE, "authentication": GUARDED}]}]
    ledger.append("release.activated", "clr-release/1", {"joined": joined}, **ADMIN)
    reason = f"{ALICE.upper()} said that the lamps are new"
    ledger.append("release.rollback", "clr-release/1", {"reason": reason, "os_user": BOB}, **ADMIN)
    closed = {"reviewer": ALICE, "reason": "blurred"}
    ledger.append("candidate.closed", "clr-animals/2", closed, **ADMIN)
    return ledger


def rows(database, table="clr_ledger"):
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1")]


def kinds(ledger):
    return [(problem.kind, problem.seq) for problem in ledger.verify()]


def files(state, *names):
    """Which files of a ledger have one of these texts among their bytes, in any case."""
    return [
        path.name
        for path in sorted((state / "ledger").iterdir())
        if any(name.lower().encode() in path.read_bytes().lower() for name in names)
    ]


# --- reading and rows ----------------------------------------------------------------------


def test_entries_have_names_and_words_as_they_were_given(told):
    entries = list(told.entries())
    assert (entries[0].actor, entries[0].subject) == ("root", ALICE)
    assert entries[2].payload["sentence"] == f"{BOB} may not review. Ask {ALICE}."
    assert (entries[3].actor, entries[3].payload["reason"]) == (ALICE, "seen, good")
    assert entries[3].key == f"review:clr-animals/1:{ALICE}:approved"
    assert entries[4].payload["joined"][0]["reviewers"][0]["reviewer"] == ALICE
    assert entries[5].payload == {
        "reason": f"{ALICE.upper()} said that the lamps are new",
        "os_user": BOB,
    }
    assert told.verify() == []


def test_no_row_has_them(told, database):
    text = json.dumps(rows(database)).lower()
    assert all(word not in text for word in (ALICE, BOB, "seen, good", "blurred", "lamps"))


def test_an_entry_is_returned_as_it_is_read(told):
    made = approve(told, BOB, "fine")
    assert list(told.entries())[-1] == made


def test_the_hash_of_an_entry_can_be_computed_from_what_is_given_out(told):
    for one in told.entries():
        given = one.as_dict()
        assert chain.digest({**given, **given["stored"]}) == given["hash"]


def test_a_person_has_one_ref_whoever_writes(told, state, database):
    approve(open_ledger(state), key="another")
    first, last = rows(database)[3], rows(database)[-1]
    assert first["actor"] == last["actor"]
    assert json.loads(first["payload"])["reason"] != json.loads(last["payload"])["reason"]


def test_entries_about_a_person_are_found_by_name(told):
    assert [one.seq for one in told.entries(subject=ALICE)] == [1]
    assert list(told.entries(subject="nobody")) == []


def test_the_same_key_of_the_same_person_records_once(told):
    assert approve(told, reason="again").seq == 4
    assert approve(told, BOB).seq == 8


def test_a_subject_that_only_looks_like_a_ref_is_text(told):
    subject, words = "person:" + "0" * 64, {"kind": "model.create", "sentence": f"Ask {ALICE}."}
    told.append("refused", subject, words, actor=BOB, authentication=GUARDED)
    told.append("act", subject, actor=BOB, authentication=GUARDED, key=f"{subject}:{chain.ACTOR}")
    assert told.verify() == []
    refused, act = list(told.entries(subject=subject))
    assert (refused.payload, act.key) == (words, f"{subject}:{BOB}")
    assert refused.subject == act.subject == subject


def test_a_login_that_looks_like_a_ref_is_a_name_like_any_other(told, database):
    name = "person:" + "0" * 64
    told.append("refused", name, {"kind": "user.manage", "user": name}, **ADMIN)
    assert name not in json.dumps(rows(database))
    assert (told.verify(), list(told.entries())[-1].subject) == ([], name)


# --- older ledgers -------------------------------------------------------------------------


@pytest.fixture
def older(filled, tamper):
    """A ledger of before there were refs: names in its rows, no table beside them."""
    from clr.audit.signing import load_signer

    signer, previous, statements = load_signer(filled.keys), chain.GENESIS, []
    for one in list(filled.entries()):
        key = f"review:clr-animals/1:{ALICE}:approved" if one.seq == 1 else one.key
        row = {**one.as_dict(), "actor": ALICE, "key": key, "previous": previous}
        row["payload"] = chain.payload_text(row["payload"])
        previous = chain.digest(row)
        values = (ALICE, key, row["previous"], previous, signer.sign(one.seq, previous).signature)
        columns = zip(("actor", "key", "previous", "hash", "signature"), values, strict=True)
        given = ", ".join(f"{column} = '{value}'" for column, value in columns)
        statements.append(f"UPDATE clr_ledger SET {given} WHERE seq = {one.seq};")
    tamper("".join(statements) + "DROP TABLE clr_ledger_personal")
    filled.head_path.write_bytes(signer.sign(6, previous).to_json())
    return filled


def test_an_older_ledger_is_read_and_verified_as_it_is(older):
    assert older.verify() == []
    assert {one.actor for one in older.entries()} == {ALICE}


def test_an_older_ledger_goes_on_with_refs(older, database):
    assert approve(older).seq == 1
    older.append("act", "s/1", actor=ALICE, authentication=GUARDED)
    assert chain.is_ref(rows(database)[-1]["actor"])
    assert (older.verify(), {one.actor for one in older.entries()}) == ([], {ALICE})


def test_what_an_older_ledger_names_is_told_and_stays(older):
    older.append("act", "s/1", actor=ALICE, authentication=GUARDED)
    older.erase(ALICE, GROUND, **ADMIN)
    assert older.naming(ALICE) == [1, 2, 3, 4, 5, 6]
    assert older.verify() == []


# --- tampering -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        (
            f"UPDATE clr_ledger_personal SET value = '\"eve\"' WHERE value = '\"{ALICE}\"'",
            [("renamed", 1)],
        ),
        (
            "UPDATE clr_ledger_personal SET value = '\"no\"' WHERE value = '\"seen, good\"'",
            [("renamed", 4)],
        ),
        (
            "UPDATE clr_ledger_personal SET value = 'x' WHERE value = '\"seen, good\"'",
            [("renamed", 4)],
        ),
        (
            "UPDATE clr_ledger_personal SET key = 'x' WHERE value = '\"seen, good\"'",
            [("renamed", 4)],
        ),
        (
            f"UPDATE clr_ledger_personal SET owner = '' WHERE value = '\"{ALICE}\"'",
            [("renamed", 1)],
        ),
        (
            "UPDATE clr_ledger_personal SET owner = 'x' WHERE value = '\"seen, good\"'",
            [("renamed", 4)],
        ),
        (
            "UPDATE clr_ledger_personal SET owner = ref WHERE value = '\"seen, good\"'",
            [("renamed", 4)],
        ),
        (f"DELETE FROM clr_ledger_personal WHERE value = '\"{ALICE}\"'", [("nameless", 1)]),
        ("DELETE FROM clr_ledger_personal WHERE value = '\"blurred\"'", [("nameless", 7)]),
    ],
)
def test_what_a_ref_stands_for_cannot_be_changed_unseen(told, tamper, sql, named):
    tamper(sql)
    assert kinds(told) == named


def test_two_people_cannot_be_exchanged(told, tamper):
    names = f"value IN ('\"{ALICE}\"', '\"{BOB}\"')"
    other = f"(SELECT {{}} FROM old WHERE {names} AND old.ref <> clr_ledger_personal.ref)"
    tamper(
        f"DROP INDEX ix_clr_ledger_names; CREATE TABLE old AS SELECT * FROM clr_ledger_personal;"
        f"UPDATE clr_ledger_personal SET key = {other.format('key')}, "
        f"value = {other.format('value')} WHERE {names};"
    )
    assert kinds(told) == [("renamed", 1), ("renamed", 2)]


def test_a_table_that_is_gone_is_named(told, tamper):
    tamper("DROP TABLE clr_ledger_personal")
    assert {kind for kind, _ in kinds(told)} == {"nameless"}
    assert next(told.entries()).actor.startswith("erased person ")


# --- erasing -------------------------------------------------------------------------------


def test_an_erased_person_is_in_no_entry_and_in_no_file(told, state):
    assert files(state, ALICE) == ["ledger.db"]
    done = told.erase(ALICE, GROUND, **ADMIN)
    told.scrub()
    assert files(state, ALICE, "seen, good", "blurred", "lamps") == []
    assert ALICE not in json.dumps([one.as_dict() for one in told.entries()]).lower()
    assert {one.text for one in done.gone} >= {ALICE, "seen, good", "blurred"}


def test_the_chain_verifies_afterwards_and_says_what_happened(told):
    before = [one.hash for one in told.entries()]
    done = told.erase(ALICE, GROUND, **ADMIN)
    assert told.verify() == []
    *entries, last = told.entries()
    assert [one.hash for one in entries] == before
    assert (last.action, last.actor, last.payload["ground"]) == ("person.erased", "root", GROUND)
    assert last == done.entry
    shown = personal.placeholder(done.gone[0].ref)
    assert last.subject == entries[0].subject == entries[3].actor == shown
    assert shown == f"erased person {done.gone[0].ref[7:15]}"


def test_what_others_said_stays_but_for_the_name(told):
    done = told.erase(ALICE, GROUND, **ADMIN)
    sentence = list(told.entries())[2].payload["sentence"]
    assert sentence == f"{BOB} may not review. Ask {personal.placeholder(done.gone[0].ref)}."
    assert {one.actor for one in told.entries()} > {BOB, "root"}


def test_a_damaged_row_keeps_nobody_in_the_ledger(told, state, tamper):
    """Neither one that is no JSON any more but names the person, nor anybody else's."""
    tamper(
        f"UPDATE clr_ledger_personal SET value = 'ask {ALICE}' WHERE value LIKE '% may not %';"
        "UPDATE clr_ledger_personal SET value = 'x' WHERE value = '\"blurred\"'"
    )
    told.erase(ALICE, GROUND, **ADMIN)
    told.scrub()
    assert files(state, ALICE) == []


def test_a_ledger_that_was_open_elsewhere_forgets_as_well(told, state):
    other = open_ledger(state)
    assert list(other.entries())[3].actor == ALICE
    told.erase(ALICE, GROUND, **ADMIN)
    assert list(other.entries())[3].actor.startswith("erased person ")
    approve(other, key="later")
    assert (other.verify(), list(other.entries())[-1].actor) == ([], ALICE)


def test_who_comes_back_is_somebody_new(told, database):
    told.erase(ALICE, GROUND, **ADMIN)
    approve(told)
    actors = [row["actor"] for row in rows(database)]
    assert actors[3] != actors[-1]
    assert told.verify() == []
    told.erase(ALICE, GROUND, **ADMIN)
    assert told.verify() == []


def test_a_value_put_back_after_its_erasure_is_named(told, database, tamper):
    kept = next(row for row in rows(database, "clr_ledger_personal") if ALICE in row["value"])
    told.erase(ALICE, GROUND, **ADMIN)
    tamper(f"INSERT INTO clr_ledger_personal VALUES {tuple(kept.values())}")
    assert kinds(told) == [("unerased", 8)]


@pytest.mark.parametrize(
    ("name", "ground", "actor"),
    [("nobody", GROUND, "root"), (ALICE, f"{ALICE} asked", "root"), (ALICE, GROUND, ALICE)],
)
def test_nothing_is_erased_that_would_be_written_down_again(told, name, ground, actor):
    with pytest.raises(UsageError):
        told.erase(name, ground, actor=actor, authentication="local-os-user")
    assert len(list(told.entries())) == 7


def test_a_person_who_wrote_much_is_erased_in_several_entries(told, monkeypatch):
    monkeypatch.setattr("clr.audit.ledger._REFS", 2)
    told.erase(ALICE, GROUND, **ADMIN)
    assert len(list(told.entries(action="person.erased"))) > 1
    assert told.verify() == []


# --- the forms themselves ------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.from_regex(r"[a-z0-9][a-z0-9._@-]{0,20}", fullmatch=True)


@given(texts, texts)
def test_a_value_fits_its_own_ref_alone(text, other):
    made = personal.words_of(text, "")
    assert made.fits()
    assert personal.Disclosure(made.ref, "", made.key, personal.stored_text(other)).fits() == (
        text == other
    )


@given(texts)
def test_the_same_text_has_another_ref_each_time(text):
    assert personal.name_of(text).ref != personal.name_of(text).ref


@given(st.lists(st.one_of(names, st.sampled_from([". ", ", ", " ", "'s "])), max_size=12))
def test_words_with_refs_read_as_they_were(parts):
    text = "".join(parts)
    known = {part: personal.name_of(part).ref for part in parts if part.strip(" .,'s")}
    hidden = personal.with_refs(text, known)
    assert personal.show(hidden, {ref: name for name, ref in known.items()}) == text


payloads = st.recursive(
    st.none() | st.booleans() | texts | st.integers(-9, 9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["reason", "reviewer", "value", "x", "kind"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["reason", "user", "sentence", "tags"]), payloads, max_size=4),
    texts,
)
def test_a_hidden_payload_is_shown_as_it_was(payload, hostile):
    """Whatever it holds, also what looks like a stored ref or like the text around one."""
    payload = {**payload, "note": f'"reason":"words:{"0" * 64}"', "x": hostile}
    made = {}

    def ref(one):
        made[one.ref] = one.text
        return one.ref

    @cache
    def person(name):
        return ref(personal.name_of(name))

    hidden = personal.hidden(
        payload,
        "person:" + "a" * 64,
        person,
        lambda text, owner: ref(personal.words_of(text, owner)),
    )
    row = {"actor": "person:" + "a" * 64, "action": "a", "subject": "s", "key": None}
    row["payload"] = chain.payload_text(hidden)
    assert set(personal.refs_of(row)) == {*made, row["actor"]}
    rest = dict.fromkeys(
        ("seq", "time", "authentication", "previous", "hash", "key_id", "signature"), ""
    )
    assert personal.shown_entry({**row, **rest}, made).payload == payload
