"""From an approval to a release that serves: what is checked, what is refused, what is repaired."""

from __future__ import annotations

import json

import pytest

from clr.core.files import canonical_json, sha256_bytes
from clr.errors import GateRefused, IntegrityBroken, ReviewRefused
from clr.registry.acts import LOCAL
from clr.registry.fetch import adapter_path
from clr.registry.releases import StaleGate, current_release
from clr.registry.reviews import record_review
from clr.registry.versions import get_version, tasks
from flows.reconcile import Found, follow, look, repair


@pytest.fixture(scope="module")
def waiting_once(template, tmp_path_factory, new_caps, copy_of):
    """Three champions and two candidates, both judged against the release that serves."""
    folder = tmp_path_factory.mktemp("waiting")
    plant = copy_of(template.plant, folder / "plant")
    for name, colour in (("yellow-caps", 3), ("violet-caps", 4)):
        answer = plant.clr("onboard", new_caps(folder / name, colour), "--json")
        assert answer.code == 0, answer
    return plant


@pytest.fixture
def waiting(waiting_once, tmp_path, copy_of):
    """A copy of it."""
    return copy_of(waiting_once, tmp_path / "plant")


@pytest.fixture
def stale(waiting):
    """The same after one was approved: the other's gate saw a release that serves no more."""
    assert waiting.clr("review", "yellow-caps", 1, "approve").code == 0
    return waiting


def version(plant, task="violet-caps", number=1):
    return get_version(plant.session().registry, task, number)


def serving(plant):
    return set(current_release(plant.session().registry).tasks)


def approve(session, task="violet-caps", reviewer="yuki", decision="approved", **changes):
    """What `clr review` writes first, and nothing after it, as if it had been killed then."""
    found = get_version(session.registry, task, 1)
    facts = {"adapter": found.adapter_digest, "source": found.source, **changes}
    return record_review(
        session.ledger, model=f"clr-{task}", number=1, decision=decision, reason="seen",
        actor=reviewer, authentication=LOCAL, **facts,
    )  # fmt: skip


def set_policy(plant, text):
    path = plant.root / "mlflow" / "policy.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"schema: clr.policy/1\n{text}\n", encoding="utf-8")


def test_the_ledger_names_who_joined_and_who_approved_it(waiting):
    answer = waiting.clr("review", "violet-caps", 1, "approve", "--json")
    entry = list(waiting.session().ledger.entries())[-1]
    assert (entry.action, entry.subject) == ("release.activated", "clr-release/4")
    assert entry.payload["release"] == answer.json["release_digest"]
    told = [{"reviewer": answer.json["reviewer"], "authentication": "local-os-user"}]
    found = version(waiting)
    assert entry.payload["joined"] == [
        {
            "task": "violet-caps", "version": 1, "adapter": found.adapter_digest,
            "source": found.source, "needed": 1, "reviewers": told,
        }
    ]  # fmt: skip
    assert entry.payload["reviewers"] == told
    assert found.tags["clr.promotion"] == f"release 4, {entry.time}"
    assert not look(waiting.session())


def test_what_is_approved_but_was_not_promoted_is_promoted_by_the_operator(waiting):
    assert waiting.clr("promote", "violet-caps", 1).code == ReviewRefused.exit_code
    approve(waiting.session())
    answer = waiting.clr("promote", "violet-caps", 1, "--json")
    assert (answer.code, answer.json["release"]) == (0, 4), answer
    assert answer.json["reviewers"] == ["yuki"]
    before = waiting.photograph()
    assert waiting.clr("promote", "violet-caps", 1, "--json").json["already"] is True
    assert waiting.photograph() == before


def test_an_approval_for_other_bytes_or_another_source_is_none(waiting):
    session = waiting.session()
    approve(session, adapter="sha256:" + "0" * 64)
    approve(session, source="models:/m-0")
    answer = waiting.clr("promote", "violet-caps", 1)
    assert answer.code == ReviewRefused.exit_code
    assert "0 of 1" in answer.err
    assert not look(waiting.session())


def test_a_gate_that_no_longer_passes_refuses_says_so_and_closes_the_candidate(stale):
    limit = {"CLR_GATE_MAX_ADAPTER_MB": "0.001"}
    answer = stale.clr("review", "violet-caps", 1, "approve", **limit)
    assert answer.code == GateRefused.exit_code
    found = version(stale)
    assert "bytes:violet-caps" in found.tags["clr.promotion"]
    assert found.tags["clr.promotion"].startswith("refused: ")
    assert found.aliases == ()
    assert stale.ledger()[-1] == ("promotion.refused", "clr-violet-caps/1")
    assert "violet-caps" not in serving(stale)
    assert not look(stale.session())  # nobody tries it again by itself
    before = stale.photograph()
    assert stale.clr("promote", "violet-caps", 1, **limit).code == GateRefused.exit_code
    assert stale.photograph() == before
    assert stale.clr("promote", "violet-caps", 1).code == 0
    assert version(stale).tags["clr.promotion"].startswith("release 5, ")


def test_what_was_refused_can_still_be_rejected_with_a_reason(stale):
    stale.clr("review", "violet-caps", 1, "approve", CLR_GATE_MAX_ADAPTER_MB="0.001")
    approve(stale.session(), decision="rejected")
    session = stale.session()
    assert look(session).decided == (("violet-caps", 1),)
    assert follow(session, "violet-caps", 1)["reason"] == "seen"
    assert not look(session)


def flip(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def adapter(plant, found):
    registry = plant.session().registry
    return adapter_path(registry, found.task, found.version, found.adapter_digest)


def artifact(name):
    def path(plant, found):
        run = plant.session().registry.client.get_run(found.run_id)
        return plant.root.__class__(run.info.artifact_uri.removeprefix("file://"), name)

    return path


@pytest.mark.parametrize(
    "file",
    [adapter, artifact("evidence/evidence.safetensors"), artifact("gate/gate.json")],
    ids=["adapter", "evidence", "gate"],
)
def test_bytes_that_were_changed_are_not_promoted(waiting, file):
    flip(file(waiting, version(waiting)))
    answer = waiting.clr("review", "violet-caps", 1, "approve")
    assert answer.code == IntegrityBroken.exit_code
    assert serving(waiting) == {"red-caps", "green-caps", "blue-caps"}
    assert waiting.ledger()[-1] == ("promotion.refused", "clr-violet-caps/1")
    assert version(waiting).tags["clr.promotion"].startswith("refused: ")


def forge_report(plant, data):
    """Put other bytes in place of the gate's report, and into the tag their digest."""
    artifact("gate/gate.json")(plant, version(plant)).write_bytes(data)
    client = plant.session().registry.client
    client.set_model_version_tag("clr-violet-caps", "1", "clr.gate_digest", sha256_bytes(data))


@pytest.mark.parametrize(
    ("name", "value"),
    [("verdict", "fail"), ("adapter", "sha256:" + "0" * 64), ("release", "sha256:" + "0" * 64)],
)
def test_a_gate_report_about_something_else_admits_nothing(waiting, name, value):
    """Even one that was forged together with the tag that names it."""
    put_report(waiting, lambda report: {**report, name: value})
    answer = waiting.clr("review", "violet-caps", 1, "approve")
    assert answer.code == IntegrityBroken.exit_code
    assert name in answer.err


def without(report, *names):
    return {name: value for name, value in report.items() if name not in names}


FORGED = {
    "nothing but pass": lambda report: {"verdict": "pass", "newcomer": "violet-caps"},
    "no adapter": lambda report: without(report, "adapter"),
    "no release": lambda report: without(report, "release"),
    "no matrix": lambda report: without(report, "matrix"),
    "a matrix of words": lambda report: {
        **report, "matrix": {**report["matrix"], "best": ["x" for _ in report["matrix"]["best"]]}
    },
    "an earlier task left out": lambda report: {
        **report, "checks": [one for one in report["checks"] if one["task"] != "red-caps"]
    },
    "no routing": lambda report: {
        **report, "checks": [one for one in report["checks"] if one["name"] != "routing"]
    },
    "no check of its own": lambda report: {
        **report, "checks": [one for one in report["checks"] if one["task"] != "violet-caps"]
    },
    "a check that failed": lambda report: {
        **report, "checks": [{**report["checks"][0], "verdict": "fail"}, *report["checks"][1:]]
    },
    "named as failed": lambda report: {**report, "failed": ["retention:red-caps"]},
    "a list": lambda report: [],
}  # fmt: skip


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_gate_report_that_does_not_say_pass_of_everything_admits_nothing(waiting, forge):
    put_report(waiting, forge)
    answer = waiting.clr("review", "violet-caps", 1, "approve")
    assert answer.code == IntegrityBroken.exit_code
    assert "gate report" in answer.err
    assert serving(waiting) == {"red-caps", "green-caps", "blue-caps"}


def put_report(plant, change):
    """Change the registered report, and the tag that names it, to fit."""
    path = artifact("gate/gate.json")(plant, version(plant))
    forge_report(plant, canonical_json(change(json.loads(path.read_bytes()))))


def test_limits_are_those_of_who_promotes_not_of_who_trained(waiting):
    strict = {"CLR_GATE_MAX_ADAPTER_MB": "0.0001"}
    answer = waiting.clr("review", "violet-caps", 1, "approve", **strict)
    assert answer.code == GateRefused.exit_code
    assert "bytes:violet-caps" in answer.err
    assert serving(waiting) == {"red-caps", "green-caps", "blue-caps"}


@pytest.fixture
def reconcile(waiting, monkeypatch):
    """What the release service does when it looks around."""
    from flows.releasing import reconcile

    for name, value in waiting.settings.items():
        monkeypatch.setenv(name, value)
    return lambda: reconcile(str(waiting.root))


@pytest.mark.parametrize("data", [b"[]", b"not json"])
def test_a_report_that_cannot_be_read_is_refused_and_stops_no_later_decision(
    waiting, reconcile, data
):
    forge_report(waiting, data)
    session = waiting.session()
    approve(session, "violet-caps")
    approve(session, "yellow-caps")
    reconcile()
    assert "yellow-caps" in serving(waiting)
    assert "violet-caps" not in serving(waiting)
    assert ("promotion.refused", "clr-violet-caps/1") in waiting.ledger()
    assert not look(waiting.session())


def test_whatever_one_decision_does_those_after_it_have_their_turn(waiting, reconcile, monkeypatch):
    def followed(session, task, number):
        if task == "violet-caps":
            raise AttributeError("nobody thought of this")
        return follow(session, task, number)

    monkeypatch.setattr("flows.reconcile.follow", followed)
    session = waiting.session()
    approve(session, "violet-caps")
    approve(session, "yellow-caps")
    with pytest.raises(AttributeError):
        reconcile()
    assert "yellow-caps" in serving(waiting)
    assert look(waiting.session()).decided == (("violet-caps", 1),)


def test_a_race_lost_to_another_machine_is_run_again(waiting, monkeypatch):
    """The server says no since another release serves by now, which is no refusal for good."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    session = waiting.session()
    approve(session)
    client = session.registry.client
    move, ours = client.set_registered_model_alias, []

    def slower(name, alias, number):
        if (name, alias) != ("clr-release", "champion"):
            return move(name, alias, number)
        ours.append(number)
        move(name, alias, "2")
        raise MlflowException("another promotion came first", error_code=PERMISSION_DENIED)

    monkeypatch.setattr(client, "set_registered_model_alias", slower)
    with pytest.raises(StaleGate, match="Another promotion came first"):
        follow(session, "violet-caps", 1)
    monkeypatch.undo()
    assert ours == ["4"]
    assert "promotion.refused" not in {action for action, _ in waiting.ledger()}
    assert look(waiting.session()).decided == (("violet-caps", 1),)
    assert follow(waiting.session(), "violet-caps", 1)["release"] == 5
    assert "violet-caps" in serving(waiting)


def test_a_report_that_is_kept_nowhere_is_made_again(stale):
    """The gate ran again, the tags say so, and its report went with the local files."""
    client = stale.session().registry.client
    release = current_release(stale.session().registry)
    for tag, value in (("gate_digest", "sha256:" + "0" * 64), ("gate_release", release.digest)):
        client.set_model_version_tag("clr-violet-caps", "1", f"clr.{tag}", value)
    answer = stale.clr("review", "violet-caps", 1, "approve", "--json")
    assert (answer.code, answer.json["release"]) == (0, 5), answer
    assert stale.clr("verify").code == 0


def test_a_quorum_of_two_waits_for_the_second(waiting):
    set_policy(waiting, "review: {quorum: 2}")
    first = waiting.clr("review", "violet-caps", 1, "approve", "--json", LOGNAME="alice")
    assert first.code == 0
    assert "1 of 2: alice" in first.json["waiting"]
    again = waiting.clr("review", "violet-caps", 1, "approve", LOGNAME="alice")
    assert (again.code, "1 more is needed" in again.out) == (0, True)
    assert waiting.clr("promote", "violet-caps", 1).code == ReviewRefused.exit_code
    assert not look(waiting.session())
    second = waiting.clr("review", "violet-caps", 1, "approve", "--json", LOGNAME="bob")
    assert second.json["reviewers"] == ["alice", "bob"]
    assert second.json["release"] == 4


def test_the_policy_can_forbid_reviews_without_a_server(waiting):
    set_policy(waiting, "embedded_review: false")
    approve(waiting.session())
    before = waiting.photograph()
    for command in (("review", "violet-caps", 1, "approve"), ("promote", "violet-caps", 1)):
        answer = waiting.clr(*command)
        assert answer.code == ReviewRefused.exit_code
        assert "clr up registry" in answer.err
    assert waiting.photograph() == before


def test_decisions_that_nobody_carried_out_are_found_the_earliest_first(waiting):
    session = waiting.session()
    approve(session, "violet-caps")
    approve(session, "yellow-caps", decision="rejected")
    assert look(session).decided == (("violet-caps", 1), ("yellow-caps", 1))
    assert follow(session, "violet-caps", 1)["release"] == 4
    assert follow(session, "yellow-caps", 1)["decision"] == "reject"
    assert not look(session)
    closed = version(waiting, "yellow-caps")
    assert closed.aliases == ()
    assert closed.tags["clr.promotion"] == "rejected by yuki: seen"
    assert waiting.ledger()[-1] == ("candidate.closed", "clr-yellow-caps/1")


def test_aliases_that_somebody_moved_are_put_right(waiting):
    client = waiting.session().registry.client
    client.delete_registered_model_alias("clr-red-caps", "champion")
    client.set_registered_model_alias("clr-violet-caps", "champion", "1")
    session = waiting.session()
    assert look(session) == Found(behind=("red-caps", "violet-caps"))
    repair(session)
    assert not look(session)
    found = tasks(session.registry)
    assert found["red-caps"] == {"champion": 1}
    assert "champion" not in found["violet-caps"]


def test_a_release_that_the_ledger_missed_is_recorded(waiting, monkeypatch):
    from flows import promote

    monkeypatch.setattr(promote, "record", lambda *_: None)
    assert waiting.clr("review", "violet-caps", 1, "approve").code == 0
    monkeypatch.undo()
    session = waiting.session()
    assert look(session).unrecorded
    repair(session)
    assert not look(session)
    entry = list(session.ledger.entries())[-1]
    assert [one["task"] for one in entry.payload["joined"]] == ["violet-caps"]
    assert waiting.clr("verify").code == 0
