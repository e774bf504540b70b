"""A reviewer is erased while the server runs: it forgets at once, and goes on."""

from __future__ import annotations

import json

from clr.audit.ledger import open_ledger
from tests.server.attempts.reviewing import WAITING
from tests.waiting import until

TAGS = "model-versions/set-tag"
WHY = ("--reason", "asked on 3 March, ticket 17")


def test_a_reviewer_is_forgotten_by_a_running_server(house):
    version = house.version("forgettable", **WAITING)
    about = {"name": version.model, "version": str(version.number)}
    house.passwords["erin.moss"] = "correct horse battery"
    added = house.plant.clr(
        *("users", "add", "erin.moss", "--role", "reviewer"),
        CLR_PASSWORD=house.passwords["erin.moss"],
    )
    assert added.code == 0, added
    # a running server reads its policy anew within a second
    assert until(lambda: house.call("erin.moss", "GET", "experiments/search?max_results=1").ok)
    since = house.entries()[-1].seq
    for key, value in (("review.reason", "erin.moss saw it"), ("review", "approved")):
        answer = house.call("erin.moss", "POST", TAGS, {**about, "key": key, "value": value})
        assert answer.status_code == 200, answer.text
    refused = house.call("erin.moss", "DELETE", "model-versions/delete", about)
    assert refused.status_code == 403
    assert "erin.moss" in house.tags(version.model, version.number)["clr.reviewed_by"]

    done = house.plant.clr("erase", "erin.moss", *WHY, "--yes", "--json", LOGNAME="keeper")
    assert done.code == 0, done
    assert (done.json["login"], done.json["left"]) == (True, {})
    again = {**about, "key": "x", "value": "y"}
    answer = house.call("erin.moss", "POST", TAGS, again)
    assert answer.status_code in (401, 404), answer.text  # MLflow may remember the password
    told = house.tags(version.model, version.number)
    assert told["clr.reviewed_by"] == done.json["person"]
    assert "erin" not in json.dumps([told, [one.as_dict() for one in house.entries(since)]])

    words = {**about, "key": "review", "value": "approved"}
    assert house.call("alice", "POST", TAGS, words).status_code == 200
    told = house.tags(version.model, version.number)
    assert told["clr.reviewed_by"] == f"{done.json['person']}, alice"
    assert open_ledger(house.plant.state).verify() == []
