"""What serves: aliases and releases."""

from __future__ import annotations

from tests.house import House
from tests.server.attempts import releases
from tests.server.attempts.model import Attempt, Stage, alias, drop_alias, shared
from tests.server.attempts.releases import RELEASE
from tests.server.attempts.reviewing import approved_before


def pointed_at(model: str, name: str = "champion"):
    """Given: the version that an alias of `model` points at now."""
    return lambda house: {"model": model, "number": str(house.aliases(model)[name])}


def first_release(house: House) -> dict[str, str]:
    """The first release, which served once; and the number of the one that serves."""
    return {"model": RELEASE, "number": "1", "serving": str(house.aliases(RELEASE)["champion"])}


def is_candidate(stage: Stage) -> None:
    """The alias points where it was set."""
    assert stage.house.aliases(stage.on.model)["candidate"] == stage.on.number


def served_again(stage: Stage) -> None:
    """The older release serves; then the newer again, so that the next attempt finds it so."""
    house = stage.house
    assert house.aliases(RELEASE)["champion"] == 1
    body = {"name": RELEASE, "version": stage.on["serving"], "alias": "champion"}
    assert house.call("ruth", "POST", "registered-models/alias", body).status_code == 200


def release_of_approved(house: House) -> dict[str, str]:
    """A release with a version that one of three reviewers has approved."""
    approved_before(house)
    return releases.naming("approved", task="patient")(house)


def wrong_digest(house: House) -> dict:
    """A release whose tag names other bytes than its file has."""
    return {"body": releases.request(releases.draft(house, lambda r: None), "sha256:" + "2" * 64)}


def by_trainer(house: House) -> dict:
    """A release that a trainer wants to write."""
    return {"body": releases.request(releases.draft(house, lambda r: r["tasks"].clear()))}


def register(stage: Stage):
    """Register the version that was prepared."""
    return stage.call("POST", "model-versions/create", stage.on["body"])


ROWS = [
    *(
        Attempt(who, f"points the alias `{shown}` at an unapproved version", alias(name), sentence)
        for who, shown, name, sentence in [
            ("tess", "champion", "champion", "release service"),
            ("alice", "champion", "champion", "release service"),
            ("admin", "champion", "champion", "release service"),
            ("ada", "champion", "champion", "release service"),
            ("clr-trainer", "champion", "champion", "release service"),
            ("otto", "champion", "champion", "release service"),
            ("nina", "champion", "champion", "no role"),
            ("ruth", "champion", "champion", "release"),
            ("clr-release", "champion", "champion", "release"),
            ("tess", "Champion", "Champion", "champion"),
            ("tess", "CHAMPION", "CHAMPION", "champion"),
            ("alice", "champion ", "champion ", "champion"),
            ("alice", "ｃｈａｍｐｉｏｎ", "ｃｈａｍｐｉｏｎ", "champion"),
            ("tess", "cham·pion (an invisible sign inside)", "cham\u200bpion", "champion"),
            ("tess", "production", "production", "candidate|champion"),
            ("tess", "previous", "previous", "release service"),
            ("tess", "challenger", "challenger", "release service"),
            ("clr-release", "previous", "previous", "champion"),
            ("alice", "candidate", "candidate", "clr onboard"),
        ]
    ),
    Attempt("tess", "points `candidate` at a version that passed the gate", alias("candidate"),
            then=is_candidate, shows="done"),
    Attempt("tess", "points `candidate` at a version that the gate refused", alias("candidate"),
            "gate", given=shared("failed", verdict="gate-refused")),
    Attempt("tess", "points `candidate` of `clr-release` at a release", alias("candidate"),
            "release", given=first_release),
    *(
        Attempt(who, "takes the alias `champion` from the model that serves",
                drop_alias("champion"), sentence, given=pointed_at("clr-red-caps"))
        for who, sentence in [
            ("tess", "pipeline"), ("alice", "pipeline"), ("admin", "pipeline"),
            ("clr-release", "retire|serv"),
        ]
    ),
    Attempt("alice", "points `champion` of `clr-release` at an older release (a rollback by hand)",
            alias("champion"), "rollback|release", given=first_release),
    Attempt("admin", "points `champion` of `clr-release` at an older release", alias("champion"),
            "rollback|release", given=first_release),
    Attempt("clr-release", "takes the alias `champion` from `clr-release`", drop_alias("champion"),
            "serve", given=pointed_at(RELEASE)),
    Attempt("ruth", "points `champion` of `clr-release` at a release that served before",
            alias("champion"), given=first_release, then=served_again,
            shows="done: a rollback (`clr rollback` also keeps a reason)"),
    Attempt("ruth", "registers a release whose tag names other bytes", register, "bytes|digest",
            given=wrong_digest),
    Attempt("tess", "registers a release", register, "release", given=by_trainer),
    Attempt("ruth", "activates a release with a version that nobody has approved",
            alias("champion"), "approv", given=releases.naming("plain")),
    Attempt("ruth", "activates a release with a version that one of three has approved",
            alias("champion"), "approv", given=release_of_approved),
    Attempt("ruth", "activates a release with a version that the gate refused", alias("champion"),
            "gate|approv", given=releases.naming("failed", verdict="gate-refused")),
    Attempt("ruth", "activates a release that swaps a serving adapter for an unapproved one",
            alias("champion"), "approv", given=releases.swapped),
    Attempt("ruth", "activates a release that names a serving version with other bytes",
            alias("champion"), "bytes|digest|adapter", given=releases.forged),
    Attempt("ruth", "rolls back to a release that never served", alias("champion"), "serve",
            given=releases.stale),
]  # fmt: skip
