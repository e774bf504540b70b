"""Promotion where a guarded server keeps the registry: a tag is set, the release service acts."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from clr.errors import ReviewRefused
from clr.registry import webhook
from clr.registry.releases import current_release, find_release
from tests.house import sentence
from tests.siblings import register_sibling
from tests.waiting import until

REVIEWERS = ("alice", "bob", "carol", "dora")
PROMOTED_SECONDS = 15.0
NOBODY = {"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": ""}


def tag(house, user, found, key, value):
    body = {"name": f"clr-{found.task}", "version": str(found.version), "key": key, "value": value}
    return house.call(user, "POST", "model-versions/set-tag", body)


def runs(api, name):
    """States of the Prefect flow runs of that name."""
    wanted = {"flow_runs": {"name": {"any_": [name]}}}
    found = requests.post(f"{api}/flow_runs/filter", json=wanted, timeout=30).json()
    return [one["state_type"] for one in found]


def champion(house, task):
    return house.aliases(f"clr-{task}").get("champion")


def serving(house):
    return house.aliases("clr-release")["champion"]


def test_a_tag_set_in_the_page_is_a_release_within_seconds(office, prefect_api):
    found = register_sibling(office.plant.session(), "red-caps", 1)
    before, former = serving(office), champion(office, "red-caps")
    started = time.monotonic()
    assert tag(office, "alice", found, "review", " Approve ").status_code == 200
    assert until(lambda: champion(office, "red-caps") == found.version, 60)
    seconds = time.monotonic() - started
    print(f"from tag to champion: {seconds:.2f} s")
    assert seconds < PROMOTED_SECONDS
    assert until(lambda: "clr.promotion" in office.tags("clr-red-caps", found.version), 10)
    assert serving(office) == before + 1
    last = [one for one in office.entries() if one.action == "release.activated"][-1]
    assert (last.actor, last.authentication) == ("clr-release", "mlflow-basic-auth")
    assert last.payload["reviewers"] == [
        {"reviewer": "alice", "authentication": "mlflow-basic-auth"}
    ]
    assert office.aliases("clr-red-caps") == {"champion": found.version, "previous": former}
    assert until(lambda: "COMPLETED" in runs(prefect_api, f"promote-red-caps-{found.version}"))


def test_a_rejection_closes_the_candidate_and_keeps_its_reason(office):
    found = register_sibling(office.plant.session(), "green-caps", 1)
    assert tag(office, "bob", found, "review.reason", "blurred").status_code == 200
    assert tag(office, "bob", found, "review", "却下").status_code == 200
    assert until(lambda: "candidate" not in office.aliases("clr-green-caps"))
    assert until(lambda: office.entries()[-1].action == "candidate.closed")
    assert office.entries()[-1].payload["reason"] == "blurred"
    assert "blurred" in office.tags("clr-green-caps", found.version)["clr.promotion"]


def test_nobody_signs_the_words_of_somebody_else(office):
    found = register_sibling(office.plant.session(), "green-caps", 2)
    assert tag(office, "alice", found, "review.reason", "fine on line 3").status_code == 200
    assert tag(office, "bob", found, "review", "rejected").status_code == 200
    (entry,) = [
        one
        for one in office.entries()
        if (one.action, one.subject) == ("review.rejected", f"clr-green-caps/{found.version}")
    ]
    assert (entry.actor, entry.payload["reason"]) == ("bob", "")


def test_the_command_decides_at_the_server_like_the_page(office):
    found = register_sibling(office.plant.session(), "blue-caps", 1)
    number = found.version
    for user, words in (("tess", "may not review"), ("ruth", "may not review")):
        answer = office.clr(user, "review", "blue-caps", number, "approve")
        assert (answer.code, words in answer.err) == (ReviewRefused.exit_code, True), answer
    nobody = office.plant.clr("review", "blue-caps", number, "approve", **NOBODY)
    assert (nobody.code, "MLFLOW_TRACKING_USERNAME" in nobody.err) == (5, True), nobody
    approve = ("review", "blue-caps", number, "approve", "--json")
    answer = office.clr("carol", *approve, "--reason", "ok")
    assert answer.code == 0, answer
    told = answer.json
    assert (told["release"], told["reviewer"], told["reason"]) == (serving(office), "carol", "ok")
    again = office.clr("alice", *approve)
    assert (again.code, again.json["already"]) == (0, True)


def test_a_rejection_by_somebody_else_ends_the_waiting_for_an_approval(office):
    """Under a quorum of two alice waits for nothing that could still come."""
    from flows import review_server

    found = register_sibling(office.plant.session(), "blue-caps", 2)
    assert tag(office, "bob", found, "review", "rejected").status_code == 200
    with pytest.raises(ReviewRefused, match="rejected by somebody else"):
        review_server.wait(office.plant.session(), found)


def test_only_the_release_role_takes_back(office):
    now = serving(office)
    before = office.entries()
    for user in ("alice", "tess", "ada", "otto"):
        answer = office.clr(user, "rollback", "--reason", "no")
        assert answer.code == ReviewRefused.exit_code, answer
    assert [one for one in office.entries() if one.action == "release.rollback"] == []
    assert serving(office) == now
    answer = office.clr("ruth", "rollback", "--reason", "seen late", "--json")
    assert (answer.code, answer.json["release"]) == (0, now - 1), answer
    assert champion(office, "blue-caps") == 1
    order = next(one for one in office.entries(before[-1].seq) if one.action == "release.rollback")
    assert (order.actor, order.authentication) == ("ruth", "mlflow-basic-auth")
    arguments = ("rollback", "--to", now, "--reason", "was right", "--json")
    home = office.plant.clr(*arguments, **NOBODY)  # may read the release service's password
    assert (home.code, home.json.get("release")) == (0, now), home
    assert champion(office, "blue-caps") == 2


def test_the_service_believes_no_webhook_that_the_server_did_not_sign(office):
    address = f"{office.told()['service']}/webhook"
    secret = (office.plant.state / "secrets" / "webhook.secret").read_text().strip()
    data = {"name": "clr-green-caps", "version": "2", "key": "review", "value": "approved"}
    event = {"entity": "model_version_tag", "action": "set", "data": data}
    body = json.dumps(event).encode()
    stamp = str(int(time.time()))
    headers = {
        webhook.DELIVERY_HEADER: "forged-1",
        webhook.TIMESTAMP_HEADER: stamp,
        webhook.SIGNATURE_HEADER: webhook.sign("guessed", "forged-1", stamp, body),
    }
    post = requests.post
    assert post(address, data=body, timeout=10).status_code == 400
    assert post(address, data=body, headers=headers, timeout=10).status_code == 401
    good = {**headers, webhook.SIGNATURE_HEADER: webhook.sign(secret, "forged-1", stamp, body)}
    assert post(address, data=body + b" ", headers=good, timeout=10).status_code == 401
    assert post(address, data=body, headers=good, timeout=10).status_code == 202
    assert post(address, data=body, headers=good, timeout=10).status_code == 409
    assert post(address, data=b" " * 70_000, headers=good, timeout=10).status_code == 413
    assert requests.get(address, timeout=10).status_code == 405
    time.sleep(2)  # what it says was approved never was, so nothing comes of it
    assert champion(office, "green-caps") == 1


@pytest.mark.slow
@pytest.mark.soak
def test_twenty_candidates_approved_at_once_join_one_after_another_or_are_overtaken(office):
    session, tasks = office.plant.session(), ("red-caps", "green-caps", "blue-caps")
    found = [register_sibling(session, tasks[n % 3], 10 + n) for n in range(20)]
    before, since = serving(office), office.entries()[-1].seq
    started = time.monotonic()

    def approve(reviewer, mine):
        return [tag(office, reviewer, one, "review", "approved") for one in mine]

    with ThreadPoolExecutor(len(REVIEWERS)) as clients:
        parts = [found[n :: len(REVIEWERS)] for n in range(len(REVIEWERS))]
        answers = [one for part in clients.map(approve, REVIEWERS, parts) for one in part]
    assert [one.status_code for one in answers] == [200] * 20, sentence(answers[0])
    approved = time.monotonic()
    assert until(lambda: sum(map(len, _outcomes(office, since))) == 20, 240)
    joined, overtaken = _outcomes(office, since)
    done = time.monotonic()
    print(
        f"20 approvals {approved - started:.1f} s, {len(joined)} promotions {done - started:.1f} s"
    )
    session = office.plant.session()
    release, chain = current_release(session.registry), []
    while release.version != before:
        chain.insert(0, f"clr-release/{release.version}")
        release = find_release(session.registry, release.previous)
    activated = [one for one in office.entries(since) if one.action == "release.activated"]
    assert [one.subject for one in activated] == chain
    assert len(chain) == len(joined)
    assert sorted(joined + overtaken) == sorted((one.task, one.version) for one in found)
    newest = {task: max(one.version for one in found if one.task == task) for task in tasks}
    assert {task: champion(office, task) for task in tasks} == newest == dict(joined)
    assert session.ledger.verify() == []
    verified = office.plant.clr("verify", "--json")
    assert (verified.code, verified.json["problems"]) == (0, [])


def _outcomes(house, since):
    """Return (task, version) of what joined a release, in order, and of what was overtaken."""
    entries = house.entries(since)
    activated = [one for one in entries if one.action == "release.activated"]
    refused = [one.subject for one in entries if one.action == "promotion.refused"]
    return (
        [(one["task"], one["version"]) for entry in activated for one in entry.payload["joined"]],
        [(name[len("clr-") :], int(version)) for name, version in (s.split("/") for s in refused)],
    )
