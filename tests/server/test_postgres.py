"""The same server where a real PostgreSQL keeps registry, users and ledger."""

from __future__ import annotations

import re

import psycopg
import pytest

from clr.audit.ledger import open_ledger
from tests.candidate import ADAPTER
from tests.house import sentence, stop
from tests.postgres import _programs
from tests.server.attempts.model import APPROVAL, FILES, VERSION, Stage
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("postgres")  # a house of its own

USERS = {"tess": "trainer", "alice": "reviewer", "carol": "trainer reviewer", "otto": "auditor"}
REFUSED = [
    ("tess", "POST", "model-versions/set-tag", APPROVAL, "may not review"),
    ("otto", "POST", "model-versions/set-tag", {**APPROVAL, "key": "note"}, "auditor"),
    ("nina", "POST", "model-versions/set-tag", APPROVAL, "no role"),
    ("alice", "POST", "registered-models/alias", {**VERSION, "alias": "champion"},
     "release service alone"),
    ("alice", "POST", "registered-models/alias", {**VERSION, "alias": "Champion"}, "did you mean"),
    ("alice", "POST", "model-versions/set-tag", {**APPROVAL, "value": "x" * 5001}, "5000 fit"),
    ("alice", "POST", "model-versions/set-tag", {**APPROVAL, "key": "note", "value": "a\x00b"},
     "no text"),
    ("tess", "PUT", f"{FILES}/{{folder}}/{ADAPTER}", None, "written once"),
    ("admin", "DELETE", "model-versions/delete", VERSION, "has reviews"),
]  # fmt: skip


@pytest.fixture(scope="module")
def database(postgres_server):
    """URL of a database for this module."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE house")
        yield postgres_server.removesuffix("/postgres") + "/house"
        connection.execute("DROP DATABASE house WITH (FORCE)")


@pytest.fixture(scope="module")
def house(new_house, new_plant, tmp_path_factory, database):
    """A house whose registry, users and ledger are in one PostgreSQL database."""
    where = {"CLR_REGISTRY_DATABASE": database, "CLR_LEDGER_URL": database}
    plant = new_plant(tmp_path_factory.mktemp("postgres") / "plant")
    house = new_house(plant, users=USERS, **where)
    yield house
    stop(house.process)


def rows(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(count)


def test_review_refusals_and_ledger_on_postgresql(house, database):
    state = house.plant.state
    assert not (state / "mlflow.db").exists()
    assert not (state / "auth.db").exists()
    version = house.version("patient")
    approved = Stage(house, "alice", version).call("POST", "model-versions/set-tag", APPROVAL)
    assert approved.status_code == 200, approved.text
    tags = house.tags(version.model, version.number)
    assert (tags["review"], tags["clr.approvals"]) == ("pending", "1 of 3: alice")
    assert tags["clr.created_by"] == "tess"
    before = house.tags(version.model, version.number), house.aliases(version.model)
    for who, method, path, body, words in REFUSED:
        answer = Stage(house, who, version).call(method, path, body)
        assert (answer.status_code, answer.ok) == (403, False), (who, path, answer.text)
        assert re.search(words, sentence(answer), re.IGNORECASE), sentence(answer)
    assert (house.tags(version.model, version.number), house.aliases(version.model)) == before
    refused = [entry.actor for entry in house.entries() if entry.action == "refused"]
    assert refused == [who for who, *_ in REFUSED]
    assert rows(database, "model_versions") == 1
    assert rows(database, "users") >= len(USERS)
    assert open_ledger(state, database).verify() == []
    assert not (state / "ledger" / "ledger.db").exists()


@pytest.mark.soak
def test_a_real_adapter_is_promoted_on_postgresql(house, new_caps, tmp_path):
    folder = new_caps(tmp_path / "violet-caps", 4)
    onboarded = house.clr("tess", "onboard", folder, "--json")
    assert onboarded.code == 0, onboarded.err
    body = {"name": "clr-violet-caps", "version": "1", "key": "review", "value": "approved"}
    assert house.call("alice", "POST", "model-versions/set-tag", body).status_code == 200
    assert until(lambda: house.aliases("clr-violet-caps").get("champion") == 1, 120)
    assert until(lambda: house.aliases("clr-release").get("champion") == 1, 10)
    assert house.tags("clr-violet-caps", 1)["clr.approvals"] == "1 of 1: alice"
    assert until(lambda: house.tags("clr-violet-caps", 1).get("clr.promotion"), 20)
    verified = house.clr("otto", "verify", "--json").json
    # the version of the other test has no evidence of a training
    assert {one["subject"] for one in verified["problems"]} <= {"clr-patient/1"}


def test_a_backup_of_it_comes_back_in_another_database(
    house, database, new_database, tmp_path, monkeypatch
):
    house.version("kept")
    monkeypatch.setenv("PATH", f"{_programs()}:/usr/bin:/bin")
    made = house.plant.clr("backup", tmp_path / "safe", "--json")
    assert (made.code, made.json["left_out"]) == (0, []), made
    entries = house.entries()
    other = new_database()
    settings = {"CLR_REGISTRY_DATABASE": other, "CLR_LEDGER_URL": other}
    command = ("restore", tmp_path / "safe", "--into", tmp_path / "new", "--json")
    done = house.plant.clr(*command, **settings)
    assert done.code == 0, done
    for table in ("model_versions", "model_version_tags", "users", "webhooks"):
        assert rows(other, table) == rows(database, table) > 0, table
    ledger = open_ledger(tmp_path / "new" / ".clr", other)
    assert ledger.verify() == []
    assert [one.hash for one in ledger.entries()][:-1] == [one.hash for one in entries[:-1]]
