"""An auditor on another machine, who has a user of the role auditor and the server's address."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from clr.audit.chain import canonical
from clr.audit.document import check
from clr.audit.ledger import open_ledger
from clr.core.files import sha256_bytes
from clr.errors import ReviewRefused, ServiceUnavailable, UsageError
from tests.house import sentence
from tests.photograph import differences

LEDGER = "/api/2.0/clr/ledger"
EXPORTS = f"{LEDGER}/exports"
EXPORT = {
    "subject": "clr-green-caps/1",
    "question": "green-caps@1",
    "format": "json",
    "digest": "sha256:" + "ab" * 32,
    "bytes": 1234,
}
LOOKS_LIKE_A_REF = "person:" + "1" * 64
ROLES = ("tess", "alice", "ruth", "ada", "otto")


@pytest.fixture(scope="module")
def desk(house, new_plant, tmp_path_factory):
    """The auditor's workspace: nothing in it but three settings."""
    plant = new_plant(tmp_path_factory.mktemp("desk") / "desk")
    login = {
        "CLR_REGISTRY_URL": house.url,
        "MLFLOW_TRACKING_USERNAME": "otto",
        "MLFLOW_TRACKING_PASSWORD": house.passwords["otto"],
    }
    return replace(plant, settings={**plant.settings, **login})


def last(house) -> int:
    return house.entries()[-1].seq


# --- the answer ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(house, desk):
    """What `clr audit` says on the server's machine, and then to the auditor elsewhere."""
    answers = []
    for ask in (lambda *words: house.clr("otto", *words), desk.clr):
        answer = ask("audit", "green-caps@1", "--json")
        assert answer.code == 0, answer
        check(answer.json)
        answers.append(answer.json)
    return answers


def test_the_auditor_gets_the_same_document_as_on_the_servers_machine(told):
    here, there = told
    assert there["verdict"]["intact"]
    assert there["data"].pop("same_bytes") is None
    assert here["data"].pop("same_bytes") is True
    assert "its images are not on this machine" in there["verdict"]["sentence"]
    for document in told:
        document["verdict"] = {**document["verdict"], "sentence": "", "notes": []}
        document["asked"] = {**document["asked"], "time": "", "entry": 0}
    before = here["ledger"]["entries"]
    assert there["ledger"].pop("entries")[: len(before)] == here["ledger"].pop("entries")
    assert there["ledger"].pop("count") > here["ledger"].pop("count")
    assert there["ledger"].pop("head")["seq"] > here["ledger"].pop("head")["seq"]
    assert there == here


def test_the_export_is_in_the_servers_ledger_under_the_authenticated_name(house, desk):
    said = desk.clr("audit", "green-caps@1", "--json", LOGNAME="mallory").json
    entry = house.entries()[-1]
    assert (entry.action, entry.subject) == ("audit.exported", "clr-green-caps/1")
    assert (entry.actor, entry.authentication) == ("otto", "mlflow-basic-auth")
    assert said["asked"]["entry"] == entry.seq
    said["asked"]["entry"] = None
    data = canonical(said, "it").encode()
    assert (entry.payload["digest"], entry.payload["bytes"]) == (sha256_bytes(data), len(data))


def test_questions_about_all_adapters_are_answered_from_the_servers_ledger(house, desk):
    answers = [
        ask("audit", "--reviews", "--json").json["rows"]
        for ask in (lambda *words: house.clr("otto", *words), desk.clr)
    ]
    assert answers[0] == answers[1] != []


def test_forms_are_made_there_too_and_signed_with_the_auditors_own_key(desk):
    answer = desk.clr("audit", "green-caps@1", "--format", "intoto")
    assert answer.code == 0, answer
    assert (desk.state / "keys" / "ledger.key").is_file()


def test_a_key_that_is_endorsed_by_the_ledger_is_not_to_be_had_from_elsewhere(
    house, desk, tmp_path
):
    since = last(house)
    answer = desk.clr(
        "audit", "green-caps@1", "--format", "model-signing", "--output", tmp_path / "x"
    )
    assert answer.code == UsageError.exit_code
    assert "takes no key.endorsed" in answer.err
    assert [one.action for one in house.entries(since)] == ["audit.exported"]


def test_only_keys_and_head_stay_on_the_auditors_machine(desk, told):
    (place,) = (desk.state / "audited").iterdir()
    names = sorted(one.name for one in place.iterdir() if not one.name.endswith(".lock"))
    assert names == ["head.json", "keys"]
    assert not (desk.state / "ledger").exists()


# --- nothing can be changed --------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("review", "plain", 1, "approve"),
        ("review", "plain", 1, "reject", "--reason", "no"),
        ("rollback", "--reason", "I say so"),
        ("retire", "green-caps", "--reason", "I say so"),
        ("promote", "plain", 1),
        ("onboard", "{tasks}/green-caps", "--name", "mine"),
        ("erase", "alice", "--reason", "I say so", "--yes"),
    ],
    ids=lambda words: words[0],
)
def test_a_command_that_changes_something_ends_with_a_sentence(house, desk, template, words):
    house.version("plain")
    before, since = house.photograph(), last(house)
    filled = [str(one).format(tasks=template.tasks) for one in words]
    answer = desk.clr(*filled, "--json")
    # what is refused before it begins counts as a registry that cannot be used
    codes = {ReviewRefused.exit_code, UsageError.exit_code}
    assert answer.code in (codes if words[0] != "onboard" else {ServiceUnavailable.exit_code})
    assert answer.json["message"]
    assert "Traceback" not in answer.err
    assert differences(before, house.photograph()) == {}
    assert {one.action for one in house.entries(since)} <= {"refused"}


def addresses():
    """Every address of MLflow that takes more than reading, with every number in it 1."""
    from mlflow.server import app

    from clr.registry.server.endpoints import READS, SAFE_METHODS

    for rule in app.url_map.iter_rules():
        if rule.endpoint in READS or rule.rule.startswith("/ajax-api"):
            continue
        for method in sorted((rule.methods or set()) - SAFE_METHODS):
            with app.test_request_context():
                path = rule.build(dict.fromkeys(rule.arguments, "1"), append_unknown=False)
            yield method, path[1]


def test_whatever_an_auditor_sends_to_change_something_is_refused(house):
    before = house.photograph()
    tried = [(*one, house.call("otto", one[0], one[1], {})) for one in addresses()]
    assert len(tried) > 100
    assert [(method, path) for method, path, answer in tried if answer.ok] == []
    assert differences(before, house.photograph()) == {}


# --- the two addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize("who", ROLES)
def test_who_has_a_role_reads_the_ledger(house, who):
    answer = house.call(who, "GET", f"{LEDGER}?since=2&limit=3")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert [row["seq"] for row in found["rows"]] == [3, 4, 5]
    assert found["more"]
    assert found["head"]["seq"] > 5
    assert "PRIVATE" not in answer.text
    assert "quorum" in found["policy"]


@pytest.mark.parametrize(("who", "status"), [("nina", 403), ("", 401)])
@pytest.mark.parametrize(("method", "path"), [("GET", LEDGER), ("POST", EXPORTS)])
def test_nobody_else_does(house, who, status, method, path):
    since = last(house)
    answer = house.call(who, method, path, EXPORT if method == "POST" else None)
    assert answer.status_code == status, answer.text
    assert "rows" not in answer.text
    assert "audit.exported" not in {one.action for one in house.entries(since)}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("since=-1", "since is no number"),
        ("since=1e3", "since is no number"),
        ("limit=0", "limit goes from 1"),
        ("limit=1001", "limit goes from 1"),
        ("subject=clr-x", "is nothing to ask for"),
    ],
)
def test_a_question_that_makes_no_sense_is_told_so(house, query, said):
    answer = house.call("otto", "GET", f"{LEDGER}?{query}")
    assert (answer.status_code, said in sentence(answer)) == (400, True), answer.text


@pytest.mark.parametrize("who", ROLES)
def test_an_export_is_noted_once_however_often_it_is_sent(house, who):
    since = last(house)
    sent = [house.call(who, "POST", EXPORTS, EXPORT) for _ in range(2)]
    assert [one.status_code for one in sent] == [200, 200]
    (entry,) = house.entries(since)
    assert {one.json()["entry"]["seq"] for one in sent} == {entry.seq}
    assert (entry.action, entry.actor, entry.subject) == ("audit.exported", who, EXPORT["subject"])
    assert entry.payload == {name: one for name, one in EXPORT.items() if name != "subject"}


@pytest.mark.parametrize(
    ("who", "method", "path", "body"),
    [
        ("nina", "PUT", f"/api/2.0/mlflow-artifacts/artifacts/{LOOKS_LIKE_A_REF}", None),
        ("nina", "POST", "registered-models/create", {"name": LOOKS_LIKE_A_REF}),
        ("otto", "POST", EXPORTS, {**EXPORT, "subject": LOOKS_LIKE_A_REF}),
    ],
)
def test_a_text_that_looks_like_a_ref_breaks_no_ledger(house, who, method, path, body):
    since = last(house)
    house.call(who, method, path, body)
    (entry,) = house.entries(since)
    assert (entry.actor, entry.subject) == (who, LOOKS_LIKE_A_REF)
    assert open_ledger(house.plant.state).verify() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"action": "review.approved"}, "no field 'action'"),
        ({"actor": "alice"}, "no field 'actor'"),
        ({"reviewer": "alice"}, "no field 'reviewer'"),
        ({"subject": None}, "subject is a text"),
        ({"subject": "a\u0000b"}, "subject is a text"),
        ({"question": "x" * 5000}, "question is a text"),
        ({"format": "JSON please"}, "format is a word"),
        ({"digest": "sha256:ab"}, "digest is sha256"),
        ({"bytes": -1}, "bytes is a number"),
        ({"bytes": True}, "bytes is a number"),
        ({"bytes": 1 << 60}, "bytes is a number"),
        ({"question": "x" * 20_000}, "at most 16384 bytes"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_nothing_but_an_export_can_be_written(house, change, said):
    since = last(house)
    answer = house.call("otto", "POST", EXPORTS, {**EXPORT, **change})
    assert (answer.status_code, said in sentence(answer)) == (400, True), answer.text
    assert {one.action for one in house.entries(since)} <= {"refused"}


def test_a_body_that_is_no_json_object_is_told_so(house):
    for data in (b"", b"[]", b"{", json.dumps([EXPORT]).encode()):
        headers = {"Content-Type": "application/json"}
        answer = house.call("otto", "POST", EXPORTS, data=data, headers=headers)
        assert answer.status_code == 400, answer.text
