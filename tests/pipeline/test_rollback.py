"""Taking back: an earlier release serves again, or a task leaves the release."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clr.errors import IntegrityBroken, UsageError
from clr.registry.acts import LOCAL
from clr.registry.fetch import adapter_path, fetch_file
from clr.registry.releases import current_release, write_release
from clr.registry.reviews import record_review
from clr.registry.versions import get_version
from flows import activation, rollback
from flows.reconcile import follow, look

WHY = ("--reason", "wrong labels since Monday")


def champions(plant):
    return {one["name"]: one["champion"] for one in plant.clr("status", "--json").json["tasks"]}


def orders(plant):
    return [one for one in plant.ledger() if one[0] in ("release.rollback", "task.retired")]


def test_the_release_before_serves_again_with_its_champions(working):
    answer = working.clr("rollback", *WHY, "--json")
    assert answer.code == 0, answer
    document = answer.json
    assert (document["release"], document["from"], document["already"]) == (2, 3, False)
    assert champions(working) == {"red-caps": 1, "green-caps": 1, "blue-caps": None}
    image = working.root / "data/blue-caps/test/light/00.png"
    (labelled,) = working.clr("predict", "--json", image).json["predictions"]
    assert labelled["task"] != "blue-caps"
    assert working.clr("predict", "--task", "blue-caps", image).code == UsageError.exit_code
    assert working.clr("verify").code == 0


def test_who_ordered_it_and_why_is_in_the_ledger_before_it_happens(working):
    assert working.clr("rollback", *WHY).code == 0
    *_, order, moved = working.session().ledger.entries()
    assert (order.action, order.subject) == ("release.rollback", "clr-release/2")
    assert order.payload["reason"] == WHY[1]
    assert order.payload["os_user"] == order.actor
    assert (moved.action, moved.subject) == ("release.activated", "clr-release/2")
    assert moved.payload["joined"] == []


def test_each_rollback_goes_one_further_back_until_there_is_none(working):
    assert working.clr("rollback", *WHY, "--json").json["release"] == 2
    assert working.clr("rollback", *WHY, "--json").json["release"] == 1
    before = working.photograph()
    answer = working.clr("rollback", *WHY)
    assert answer.code == UsageError.exit_code
    assert "no release before" in answer.err
    assert working.photograph() == before


def test_a_release_can_be_named_and_forward_is_as_good_as_back(working):
    assert working.clr("rollback", "--to", 1, *WHY).code == 0
    assert champions(working) == {"red-caps": 1, "green-caps": None, "blue-caps": None}
    assert working.clr("rollback", "--to", 3, *WHY).code == 0
    assert champions(working) == {"red-caps": 1, "green-caps": 1, "blue-caps": 1}
    assert working.clr("verify").code == 0


def test_what_serves_already_is_not_ordered_again(working):
    before = working.photograph()
    answer = working.clr("rollback", "--to", 3, *WHY, "--json")
    assert (answer.code, answer.json["already"]) == (0, True)
    assert working.photograph() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rollback", "--to", 9, *WHY), "no release 9"),
        (("rollback",), "--reason"),
        (("rollback", "--reason", " "), "reason is empty"),
        (("retire", "red-caps"), "--reason"),
        (("retire", "no-such-task", *WHY), "not in the release"),
        (("retire", "Red Caps", *WHY), "red-caps"),
    ],
)
def test_what_makes_no_sense_changes_nothing(working, arguments, words):
    before = working.photograph()
    answer = working.clr(*arguments)
    assert answer.code == UsageError.exit_code
    assert words in answer.err
    assert working.photograph() == before


def test_before_the_first_release_there_is_nothing_to_take_back(plant):
    answer = plant.clr("rollback", *WHY)
    assert answer.code == UsageError.exit_code
    assert "no release yet" in answer.err


def test_a_release_whose_adapter_was_changed_is_not_put_in_force(working):
    registry = working.session().registry
    champion = current_release(registry).tasks["red-caps"]
    path = adapter_path(registry, "red-caps", 1, champion.adapter_digest)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    before = working.photograph()
    answer = working.clr("rollback", *WHY)
    assert answer.code == IntegrityBroken.exit_code
    assert "red-caps" in answer.err
    assert working.photograph() == before


def test_a_damaged_release_can_be_left(working):
    registry = working.session().registry
    path = fetch_file(registry, "clr-release", 3, "release.json", working.root)
    path.write_bytes(path.read_bytes()[:-1])
    assert working.clr("status").code == IntegrityBroken.exit_code
    assert working.clr("rollback", *WHY, "--json").json["release"] == 2
    assert champions(working)["blue-caps"] is None
    again = working.clr("retire", "green-caps", *WHY, "--json")  # and work goes on from there
    assert (again.code, again.json["release"]) == (0, 4)


def test_a_release_that_was_written_but_never_served_is_no_target(working):
    registry = working.session().registry
    now = current_release(registry)
    written = write_release(registry, replace(now, previous=now.digest))
    answer = working.clr("rollback", "--to", written.version, *WHY)
    assert answer.code == UsageError.exit_code
    assert "never served" in answer.err


def test_what_was_taken_back_is_promoted_again_only_when_somebody_says_so(working):
    assert working.clr("rollback", *WHY).code == 0
    assert not look(working.session())
    answer = working.clr("promote", "blue-caps", 1, "--json")
    assert (answer.code, answer.json["release"]) == (0, 3)
    assert working.ledger()[-1] == ("release.activated", "clr-release/3")
    assert champions(working)["blue-caps"] == 1
    assert working.clr("verify").code == 0


@pytest.mark.parametrize("order", [("rollback",), ("retire", "blue-caps")])
def test_what_was_taken_back_comes_back_by_a_new_approval_that_is_recorded(working, order):
    assert working.clr(*order, *WHY).code == 0
    session = working.session()
    told = follow(session, "blue-caps", 1)  # somebody asks, and has approved nothing
    assert "approve it again" in told["waiting"]
    assert champions(working)["blue-caps"] is None
    found = get_version(session.registry, "blue-caps", 1)
    again = record_review(
        session.ledger, model="clr-blue-caps", number=1, adapter=found.adapter_digest,
        source=found.source, decision="approved", reason="sorted out", actor="yuki",
        authentication=LOCAL,
    )  # fmt: skip
    assert again.seq == max(one.seq for one in session.ledger.entries())
    assert look(session).decided == (("blue-caps", 1),)
    assert "release" in follow(session, "blue-caps", 1)
    assert not look(session)
    assert champions(working)["blue-caps"] == 1
    assert working.clr("verify").code == 0


def test_who_approves_again_is_in_the_ledger_again(working):
    approvals = working.ledger().count(("review.approved", "clr-blue-caps/1"))
    assert working.clr("rollback", *WHY).code == 0
    assert working.clr("review", "blue-caps", 1, "approve", "--reason", "sorted out").code == 0
    assert working.ledger().count(("review.approved", "clr-blue-caps/1")) == approvals + 1
    assert champions(working)["blue-caps"] == 1


def test_a_task_is_retired_and_the_others_stay_as_they_were(working):
    answer = working.clr("retire", "green-caps", "--reason", "the line was sold", "--json")
    assert answer.code == 0, answer
    assert (answer.json["release"], answer.json["tasks"]) == (4, 2)
    assert champions(working) == {"red-caps": 1, "green-caps": None, "blue-caps": 1}
    assert orders(working) == [("task.retired", "clr-green-caps/1")]
    assert working.clr("verify").code == 0
    again = working.clr("retire", "green-caps", *WHY, "--json").json
    assert (again["already"], again["reason"]) == (True, "the line was sold")
    assert len(orders(working)) == 1


def test_after_a_retirement_tasks_join_and_the_retired_one_comes_back(working, tmp_path, new_caps):
    assert working.clr("retire", "green-caps", *WHY).code == 0
    joined = working.clr("onboard", new_caps(tmp_path / "yellow-caps", 3), "--json")
    assert (joined.code, joined.json["gate"]["earlier_tasks"]) == (0, 2), joined
    assert working.clr("review", "yellow-caps", 1, "approve").code == 0
    back = working.clr("promote", "green-caps", 1, "--json")
    assert (back.code, back.json["release"]) == (0, 6), back
    assert set(champions(working).values()) == {1}
    assert working.clr("verify").code == 0


def test_the_last_task_can_be_retired_and_a_first_one_join(working):
    for task in ("red-caps", "green-caps", "blue-caps"):
        assert working.clr("retire", task, *WHY).code == 0
    assert working.clr("status", "--json").json["release"]["tasks"] == 0
    assert working.clr("promote", "red-caps", 1).code == 0
    assert champions(working) == {"red-caps": 1, "green-caps": None, "blue-caps": None}
    assert working.clr("verify").code == 0


def test_a_retirement_can_be_rolled_back(working):
    assert working.clr("retire", "green-caps", *WHY).code == 0
    assert working.clr("rollback", *WHY, "--json").json["release"] == 3
    assert champions(working) == {"red-caps": 1, "green-caps": 1, "blue-caps": 1}


def test_an_order_that_cannot_be_carried_out_is_closed_and_blocks_nobody(working):
    """As when the registry's policy refuses it: the next command does not try it again."""
    session = working.session()
    facts = {"release": "sha256:" + "0" * 64, "from": "", "from_version": 3}
    rollback._order(session, activation.ROLLBACK, "clr-release/9", facts, "typed wrongly")
    answer = working.clr("promote", "red-caps", 1)
    assert answer.code == IntegrityBroken.exit_code
    assert "not in the registry" in answer.err
    assert working.clr("promote", "red-caps", 1, "--json").json["already"] is True
    assert working.ledger()[-1] == ("order.refused", "clr-release/9")
