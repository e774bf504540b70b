"""Champions and tags of reviews against the ledger: who approved, what tags claim (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from clr.registry.acts import AUTHENTICATED, LOCAL
from clr.registry.names import ACTIVATED
from flows.recorded import APPROVED, REJECTED, Records, subject

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.registry.overview import Overview
    from clr.registry.release import ChampionRef, Release
    from clr.registry.roles import Policy
    from clr.registry.versions import Version

Finding = tuple[str, str]
_TALLY = re.compile(r"(\d+) of (\d+)(?:: (.+))?")


def approvers(decisions: Sequence[Entry], creator: str, authentication: str = "") -> list[str]:
    """Return who approved in a way that counts, in the order of approving.

    Args:
        decisions: about one version's bytes and source.
        creator: who registered it; under four eyes his own approval counts for nothing.
        authentication: only of this kind; empty: of any.
    """
    names = (
        one.actor
        for one in decisions
        if one.action == APPROVED
        and authentication in ("", one.authentication)
        and not (one.payload.get("four_eyes", False) and one.actor == creator)
    )
    return list(dict.fromkeys(names))


# --- champions -----------------------------------------------------------------------------


def champion_findings(
    release: Release,
    there: Overview,
    records: Records,
    policy: Policy,
    releases: Mapping[str, Release] = MappingProxyType({}),
) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it is a problem, subject, message) about the champions of a release.

    Args:
        release: that serves.
        there: versions in the registry.
        records: of the ledger.
        policy: for reviews.
        releases: by digest, as far as known: what served when a version was rejected.
    """
    for task, champion in sorted(release.tasks.items()):
        name = f"clr-{task}/{champion.version}"
        found = [one for one in there.versions.get(task, ()) if one.version == champion.version]
        if not found:
            yield True, name, "serves by the release, but is not in the registry"
            continue
        if found[0].adapter_digest != champion.adapter_digest:
            yield (
                True,
                name,
                f"its tag clr.adapter_digest says {found[0].adapter_digest}, "
                f"the release {champion.adapter_digest}",
            )
            continue
        yield from _champion(found[0], champion, records, policy)
        yield from _taken_back(found[0], champion, records, releases)


def _champion(
    version: Version, champion: ChampionRef, records: Records, policy: Policy
) -> Iterator[tuple[bool, str, str]]:
    name = subject(version)
    joining = _joining(records.moves, champion)
    needed, authentication = 1, ""
    if joining is not None:
        needed = _needed(joining, champion)
        authentication = joining.authentication if joining.authentication != LOCAL else ""
    decisions = records.of(version)
    counted = approvers(decisions, creator_of(version, records), authentication)
    if len(counted) < needed:
        yield (
            True,
            name,
            f"is champion, but the ledger has {len(counted)} of {needed} approvals of its bytes",
        )
        return
    for one in decisions:
        if one.action == REJECTED and (joining is None or one.seq < joining.seq):
            yield True, name, f"is champion, but {one.actor} rejected it (entry {one.seq})"
    if not approvers(decisions, creator_of(version, records), AUTHENTICATED):
        yield False, name, f"approved by {', '.join(counted)} as {LOCAL}: weaker evidence"
    if len(counted) < policy.quorum_for(version.task):
        yield (
            False,
            name,
            f"has {len(counted)} approval(s); the policy now asks for "
            f"{policy.quorum_for(version.task)}",
        )


def _taken_back(
    version: Version, champion: ChampionRef, records: Records, releases: Mapping[str, Release]
) -> Iterator[tuple[bool, str, str]]:
    """Yield the rejections of a champion that served before, and not when it was rejected."""
    joining = _joining(records.moves, champion)
    activated = [one for one in records.moves if one.action == ACTIVATED]
    for one in records.of(version):
        if one.action != REJECTED or joining is None or one.seq < joining.seq:
            continue
        served = [str(move.payload.get("release")) for move in activated if move.seq < one.seq]
        then = releases.get(served[-1]) if served else None
        if then is not None and then.tasks.get(version.task) != champion:
            yield (
                True,
                subject(version),
                f"serves again, though {one.actor} rejected it (entry {one.seq})",
            )


def _joining(moves: Sequence[Entry], champion: ChampionRef) -> Entry | None:
    """Return the newest activation that made this version champion."""
    for entry in reversed(moves):
        for one in _joined(entry):
            if (one.get("task"), one.get("version"), one.get("adapter")) == (
                champion.task,
                champion.version,
                champion.adapter_digest,
            ):
                return entry
    return None


def _joined(entry: Entry) -> list[dict[str, object]]:
    joined = entry.payload.get("joined")
    return [one for one in joined if isinstance(one, dict)] if isinstance(joined, list) else []


def _needed(entry: Entry, champion: ChampionRef) -> int:
    """Return the quorum when the version was promoted, as recorded then."""
    for one in _joined(entry):
        needed = one.get("needed")
        if one.get("task") == champion.task and isinstance(needed, int):
            return max(1, needed)
    return 1


# --- tags ----------------------------------------------------------------------------------


def creator_of(version: Version, records: Records) -> str:
    """Return who registered a version: as the ledger has it, else as its tag says."""
    entry = records.created.get(version.source)
    return entry.actor if entry else version.tags.get("clr.created_by", "")


def tag_problems(version: Version, records: Records, quorum: int) -> Iterator[Finding]:
    """Yield tags of a version that say other than the ledger.

    A decision is written into the ledger first: until it is carried out, each tag may still say
    what it said before.

    Args:
        version: any version.
        records: what the ledger tells.
        quorum: approvals that the policy asks for now.
    """
    name, decisions = subject(version), records.of(version)
    right = _right_tags(version, records, decisions, quorum)
    under_way = bool(decisions) and not _carried_out(version, records, decisions[-1])
    before = _right_tags(version, records, decisions[:-1], quorum) if under_way else {}
    for tag, values in right.items():
        found = version.review if tag == "review" else version.tags.get(tag, "")
        if found not in values and found not in before.get(tag, ()):
            told = values[0] or "nothing"
            yield name, f"its tag {tag} says {found or 'nothing'!r}, the ledger {told!r}"


def _right_tags(
    version: Version, records: Records, decisions: Sequence[Entry], quorum: int
) -> dict[str, list[str]]:
    """Return what each tag may say after these decisions; the likeliest first."""
    created, registered = (
        records.created.get(version.source),
        records.registered.get(subject(version)),
    )
    right = {
        "clr.created_by": [created.actor if created else ""],
        "clr.reviewed_by": [people for people, _ in _signatures(decisions)],
        "clr.reviewed_at": [moment for _, moment in _signatures(decisions)],
        "review": _words(version, decisions, quorum),
    }
    if registered is not None and "verdict" in registered.payload:
        right["clr.verdict"] = [str(registered.payload["verdict"])]
    return right


def _carried_out(version: Version, records: Records, decision: Entry) -> bool:
    """Say whether a promotion, a refusal or a closing followed a decision."""
    joined = (
        entry.seq > decision.seq
        and any(
            (one.get("task"), one.get("version")) == (version.task, version.version)
            for one in _joined(entry)
        )
        for entry in records.moves
    )
    return any(joined) or records.closed.get(subject(version), 0) > decision.seq


def _signatures(decisions: Sequence[Entry]) -> list[tuple[str, str]]:
    """Return which pairs of people and time the tags may show; the likeliest first.

    The server names all who decided, an embedded workspace who decided last.
    """
    if not decisions:
        return [("", "")]
    people = ", ".join(dict.fromkeys(one.actor for one in decisions))
    local = [(one.actor, one.time) for one in decisions if one.authentication == LOCAL]
    return [(people, decisions[-1].time), *local]


def _words(version: Version, decisions: Sequence[Entry], quorum: int) -> list[str]:
    """Return what the tag ``review`` may say; the likeliest first."""
    if not decisions:
        return ["pending"]
    if any(one.action == REJECTED for one in decisions):
        return ["rejected"]
    if decisions[-1].authentication == LOCAL:
        return ["approved"]
    able = approvers(decisions, "", AUTHENTICATED)
    words = ["approved" if len(able) >= quorum else "pending"]
    # the policy may have been another when the last of them decided
    counted = _TALLY.fullmatch(version.tags.get("clr.approvals", ""))
    if counted:
        names = counted[3].split(", ") if counted[3] else []
        if set(names) <= set(able) and len(names) == int(counted[1]):
            words.append("approved" if len(names) >= int(counted[2]) else "pending")
    return words
