"""Approving and rejecting."""

from __future__ import annotations

from tests.house import House
from tests.server.attempts.model import (
    PLAIN,
    UNAUTHENTICATED,
    VERSION,
    Attempt,
    Stage,
    approve,
    post,
    shared,
    tag,
)
from tests.waiting import until

WAITING = {"task": "patient"}  # its quorum is 3: an approval promotes nothing
MINE = shared("carols", task="patient", by="carol")


def champion(house: House) -> dict[str, str]:
    """The version of ``clr-red-caps`` that serves."""
    return {"model": "clr-red-caps", "number": str(house.aliases("clr-red-caps")["champion"])}


def waiting(name: str):
    """A version of its own for one allowed review."""
    return shared(f"patient-{name}", **WAITING)


def reviewed(words: str, reviewers: str, word: str = "pending"):
    """What the server writes beside a review."""

    def check(stage: Stage) -> None:
        tags = stage.house.tags(stage.on.model, stage.on.number)
        assert tags["review"] == word
        assert tags["clr.approvals"] == words
        assert tags["clr.reviewed_by"] == reviewers
        assert tags["clr.reviewed_at"]
        last = stage.house.entries()[-1]
        assert (last.action, last.actor) == ("review.approved", stage.who)
        assert last.authentication == "mlflow-basic-auth"

    return check


def rejected(stage: Stage) -> None:
    """The version is closed, with its reason in the ledger."""
    tags = stage.house.tags(stage.on.model, stage.on.number)
    assert (tags["review"], tags["review.reason"]) == ("rejected", "too few pictures")
    entry = next(e for e in reversed(stage.house.entries()) if e.action == "review.rejected")
    assert (entry.actor, entry.payload["reason"]) == (stage.who, "too few pictures")


def with_reason(house: House):
    """A version whose reviewer has written her reason first."""
    version = house.version("patient-reason", **WAITING)
    reason = {"key": "review.reason", "value": "too few pictures"}
    body = {"name": version.model, "version": str(version.number), **reason}
    house.call("alice", "POST", "model-versions/set-tag", body)
    return version


def refused_before(house: House):
    """A version that bob has rejected."""
    version = house.version("rejected", task="patient")
    body = {"name": version.model, "version": str(version.number)}
    house.call("bob", "POST", "model-versions/set-tag", {**body, "key": "review", "value": "no"})
    body |= {"key": "review", "value": "rejected"}
    house.call("bob", "POST", "model-versions/set-tag", body)
    return version


def approved_before(house: House):
    """A version that alice has approved, one of three."""
    version = house.version("approved", task="patient")
    body = {"name": version.model, "version": str(version.number)}
    body |= {"key": "review", "value": "approved"}
    house.call("alice", "POST", "model-versions/set-tag", body)
    return version


def same_bytes(house: House):
    """A second version with the very bytes that alice has approved in the first."""
    first = approved_before(house)
    return house.version("same-bytes", task="patient", data=first.data)


def other_bytes(house: House):
    """A version whose adapter somebody has changed on the server's disk."""
    fresh = "changed-on-disk" not in house.made
    version = house.version("changed-on-disk")
    if fresh:
        path = house.plant.state / "artifacts" / version.folder / "artifacts/adapter.safetensors"
        path.write_bytes(b"another network")
    return version


def no_longer_waiting(stage: Stage) -> None:
    """A second yes of the same person counts once."""
    assert stage.house.tags(stage.on.model, stage.on.number)["clr.approvals"].startswith("1 of 3")


def not_promoted(stage: Stage) -> None:
    """The release service says why not, and nothing serves."""
    house, version = stage.house, stage.on
    told = until(lambda: house.tags(version.model, version.number).get("clr.promotion", ""), 120)
    assert told.startswith("refused: "), told
    assert "champion" not in house.aliases(version.model)


ROWS = [
    Attempt("alice", "approves a version, as the page's form does (the task asks for three)",
            approve, given=waiting("plain"), then=reviewed("1 of 3: alice", "alice"),
            shows="recorded; `clr.approvals` says 1 of 3"),
    Attempt("bob", "writes `Approved`", tag("review", "Approved"), given=waiting("capital"),
            then=reviewed("1 of 3: bob", "bob"), shows="understood"),
    Attempt("bob", "writes ` approve `, with blanks", tag("review", " approve "),
            given=waiting("blanks"), then=reviewed("1 of 3: bob", "bob"), shows="understood"),
    Attempt("bob", "writes 承認", tag("review", "承認"), given=waiting("japanese"),
            then=reviewed("1 of 3: bob", "bob"), shows="understood"),
    Attempt("bob", "writes ＡＰＰＲＯＶＥＤ in full width", tag("review", "ＡＰＰＲＯＶＥＤ"),
            given=waiting("wide"), then=reviewed("1 of 3: bob", "bob"), shows="understood"),
    Attempt("alice", "approves the same version twice", approve, given=approved_before,
            then=no_longer_waiting, shows="counted once"),
    Attempt("bob", "approves after alice", approve, given=approved_before,
            then=reviewed("2 of 3: alice, bob", "alice, bob"), shows="2 of 3"),
    Attempt("carol", "approves a version that tess registered", approve, given=waiting("carol"),
            then=reviewed("1 of 3: carol", "carol"), shows="recorded"),
    Attempt("alice", "rejects, after writing her reason into `review.reason`",
            tag("review", "rejected"), given=with_reason, then=rejected, shows="closed, for good"),
    Attempt("alice", "approves a version that tess registered without any training", approve,
            given=shared("made-up"), then=not_promoted,
            shows="recorded; the release service finds no evidence and promotes nothing"),
    Attempt("carol", "approves the version that she registered herself", approve, "four eyes",
            given=MINE),
    Attempt("tess", "approves her own version", approve, "may not review"),
    Attempt("tom", "approves a colleague's version", approve, "may not review"),
    Attempt("clr-trainer", "approves (the flows' own account)", approve, "may not review"),
    Attempt("clr-release", "approves (the release service's account)", approve, "may not review"),
    Attempt("ruth", "approves", approve, "may not review"),
    Attempt("otto", "approves", approve, "may not review"),
    Attempt("ada", "approves", approve, "may not review"),
    Attempt("admin", "approves", approve, "may not review"),
    Attempt("nina", "approves", approve, "no role"),
    Attempt("", "approves", approve, ".", UNAUTHENTICATED, actor="-"),
    Attempt("tess", "rejects a colleague's version", tag("review", "rejected"), "may not review"),
    Attempt("bob", "approves where policy.yaml names dora alone as reviewer", approve, "dora",
            given=shared("choosy")),
    Attempt("alice", "writes `looks good` into the tag `review`", tag("review", "looks good"),
            "approved"),
    Attempt("alice", "writes `approved` with an invisible space in it",
            tag("review", "appro\u200bved"), "approved"),
    Attempt("alice", "writes nothing into the tag `review`", tag("review", ""), "approved"),
    Attempt("alice", "sets the tag back to `pending`", tag("review", "pending"), "approved",
            given=approved_before),
    Attempt("alice", "approves a version that the gate refused", approve, "gate",
            given=shared("failed", verdict="gate-refused")),
    Attempt("alice", "approves a version that bob has rejected", approve, "rejected",
            given=refused_before),
    Attempt("alice", "approves a version whose adapter file was changed on the server's disk",
            approve, "bytes|file|digest", given=other_bytes),
    Attempt("alice", "approves a version that is not there",
            post("model-versions/set-tag", name="clr-plain", version="99", key="review",
                 value="approved"), "no version 99"),
    Attempt("alice", "approves a version of a model that is not there",
            post("model-versions/set-tag", name="clr-nothing", version="1", key="review",
                 value="approved"), "no version 1"),
    Attempt("alice", "approves a release", post("model-versions/set-tag", name="clr-release",
            version="1", key="review", value="approved"), "release"),
    Attempt("alice", "rejects the champion that serves", tag("review", "rejected"), "rollback",
            given=champion),
    Attempt("alice", "takes her approval back by deleting the tag `review`",
            lambda stage: stage.call("DELETE", "model-versions/delete-tag",
                                     {**VERSION, "key": "review"}),
            "review", given=approved_before),
    Attempt("tess", "deletes the tag `review` of a rejected version",
            lambda stage: stage.call("DELETE", "model-versions/delete-tag",
                                     {**VERSION, "key": "review"}),
            "review", given=refused_before),
    Attempt("tess", "copies the words of an approval onto version 2: `clr.approvals`",
            tag("clr.approvals", "3 of 3: alice, bob, carol"), "clr.approvals", given=same_bytes),
    Attempt("tess", "replays the approval of version 1 on version 2 with the same bytes",
            approve, "may not review", given=same_bytes),
    Attempt("clr-release", "makes version 2 champion on the approval of version 1",
            post("registered-models/alias", **VERSION, alias="champion"), "release",
            given=same_bytes),
    Attempt("alice", "sets `clr.reviewed_by` by hand", tag("clr.reviewed_by", "bob"),
            "clr.reviewed_by"),
    Attempt("alice", "sets `clr.created_by`, to be no creator any more",
            tag("clr.created_by", "bob"), "clr.created_by"),
    Attempt("carol", "sets `clr.created_by` of her own version, to approve it then",
            tag("clr.created_by", "tess"), "clr.created_by", given=MINE),
    Attempt("tess", "sets `clr.verdict` to passed where the gate refused",
            tag("clr.verdict", "passed"), "clr.verdict",
            given=shared("failed", verdict="gate-refused")),
    Attempt("tess", "sets `clr.adapter_digest` to other bytes",
            tag("clr.adapter_digest", "sha256:" + "0" * 64), "clr.adapter_digest"),
    Attempt("clr-release", "sets `clr.created_by`", tag("clr.created_by", "ruth"),
            "clr.created_by"),
    *(
        Attempt(who, f"sets the tag `{shown}`, which looks like another", tag(key, "approved"),
                "did you mean `(review|clr.verdict)`", given=PLAIN)
        for who, shown, key in [
            ("tess", "Review", "Review"),
            ("tess", "review ", "review "),
            ("tess", "ｒｅｖｉｅｗ (full width)", "ｒｅｖｉｅｗ"),
            ("tess", "re·view (an invisible sign inside)", "re\u200bview"),
            ("alice", "REVIEW", "REVIEW"),
            ("alice", "revіew (a Cyrillic і)", "rev\u0456ew"),
            ("tess", "CLR.verdict", "CLR.verdict"),
        ]
    ),
    Attempt("tess", "writes the reason of a review", tag("review.reason", "fine"),
            "may not review"),
    Attempt("alice", "writes a reason of a million letters", tag("review.reason", "x" * 1_000_000),
            "5000|5,000|long|large"),
]  # fmt: skip
