"""Releases and aliases against the ledger: what serves, and what served before (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from clr.audit.chain import Entry
from clr.registry.names import ACTIVATED
from flows.findings import Finding

if TYPE_CHECKING:
    from clr.registry.overview import Overview
    from clr.registry.release import Release


def serving_release(there: Overview, releases: Mapping[str, Release]) -> Release | None:
    """Return what serves by the alias; None at the start, or where its file is damaged."""
    number = there.release_aliases.get("champion")
    return next((one for one in releases.values() if one.version == number), None)


def completed(
    there: Overview, releases: Mapping[str, Release], moves: Sequence[Entry]
) -> tuple[Sequence[Entry], frozenset[str]]:
    """Return the moves with the one that was cut off before it was recorded, if there is one.

    A promotion makes the next release serve, then moves the tasks' aliases, then records it; an
    order to go back or retire is recorded first. Whether the versions that joined may serve is
    asked of every release alike.

    Returns:
        (moves, tasks whose aliases are still on their way).
    """
    serving = serving_release(there, releases)
    last = next((one for one in reversed(moves) if one.action == ACTIVATED), None)
    if serving is None or (last is not None and last.payload.get("release") == serving.digest):
        return moves, frozenset()
    was = str(last.payload.get("release")) if last is not None else ""
    order = moves[-1] if moves and moves[-1].action != ACTIVATED else None
    ordered = order is not None and order.payload.get("release") == serving.digest
    new = not any(one.payload.get("release") == serving.digest for one in moves)
    if not ordered and not (new and serving.previous == was and (was in releases or not was)):
        return moves, frozenset()
    before = releases[was].tasks if was in releases else {}
    changed = {task for task, one in serving.tasks.items() if before.get(task) != one}
    changed |= before.keys() - serving.tasks.keys()
    if not ordered and len(changed) != 1:
        return moves, frozenset()
    payload = {"release": serving.digest, "joined": []}
    subject = f"clr-release/{serving.version}"
    pending = Entry(0, "", "", "", ACTIVATED, subject, payload, None, "", "", "", "")
    return (*moves, pending), frozenset(changed)


def served(moves: Sequence[Entry]) -> list[str]:
    """Return the digests of the releases that served, oldest first, as the ledger tells it."""
    history: list[str] = []
    for one in moves:
        digest = str(one.payload.get("release"))
        if one.action == ACTIVATED and history[-1:] != [digest]:
            history.append(digest)
    return history


def release_problems(
    there: Overview, releases: Mapping[str, Release], moves: Sequence[Entry]
) -> Iterator[Finding]:
    """Yield what is wrong with what serves, and with the chain of releases behind it.

    Args:
        there: what is registered.
        releases: undamaged releases by digest.
        moves: entries about which release serves.
    """
    number = there.release_aliases.get("champion")
    activations = [one for one in moves if one.action == ACTIVATED]
    if number is None:
        if activations:
            told = activations[-1].subject
            message = f"nothing serves, but by the ledger {told} does"
            yield Finding("clr-release", "release-moved", message)
        return
    serving = serving_release(there, releases)
    if serving is not None:
        yield from _in_force(serving, moves, activations)
        yield from _chain(serving, releases)
    yield from _lost(there, activations)
    tags = {one.version: one.tags for one in there.releases}
    for one in releases.values():
        yield from _tags(one, tags[one.version])
    yield from _previous(there, served(moves))


def _in_force(
    serving: Release, moves: Sequence[Entry], activations: Sequence[Entry]
) -> Iterator[Finding]:
    subject = f"clr-release/{serving.version}"
    last = activations[-1] if activations else None
    if last is not None and last.payload.get("release") == serving.digest:
        return
    order = moves[-1] if moves and moves[-1].action != ACTIVATED else None
    if order is not None and order.payload.get("release") == serving.digest:
        return  # ordered and carried out; the next promotion or rollback records that it was
    if not any(one.payload.get("release") == serving.digest for one in activations):
        told = "the ledger knows nothing of it: no entry release.activated names it"
    elif last is not None:
        told = f"by entry {last.seq} of the ledger {last.subject} is"
    yield Finding(subject, "release-moved", f"is in force, but {told}")


def _chain(serving: Release, releases: Mapping[str, Release]) -> Iterator[Finding]:
    """Follow ``previous`` back to the first release."""
    one, seen = serving, {serving.digest}
    while one.previous:
        before = releases.get(one.previous)
        if before is None or before.digest in seen:
            message = f"follows the release {one.previous}, which is missing or damaged"
            yield Finding(f"clr-release/{one.version}", "release-broken-chain", message)
            return
        one = before
        seen.add(one.digest)


def _lost(there: Overview, activations: Sequence[Entry]) -> Iterator[Finding]:
    known = {f"clr-release/{one.version}": one for one in there.releases}
    served = {one.subject: str(one.payload.get("release")) for one in activations}
    for subject, digest in served.items():
        if subject not in known:
            message = "served once by the ledger, but is no longer in the registry"
            yield Finding(subject, "release-missing", message)
        elif (found := known[subject].tags.get("clr.release_digest", "")) != digest:
            message = f"served with {digest} by the ledger, but now is {found or 'nothing'}"
            yield Finding(subject, "release-changed", message)


def _tags(release: Release, tags: Mapping[str, str]) -> Iterator[Finding]:
    """Yield tags of a release that say other than its file, whose digest is that of its tag."""
    right = {
        "clr.key": release.digest,
        "clr.previous_release": release.previous,
        "clr.tasks": str(len(release.tasks)),
    }
    for tag, value in right.items():
        if tags.get(tag, "") != value:
            message = f"its tag {tag} says {tags.get(tag) or 'nothing'}, its file {value}"
            yield Finding(f"clr-release/{release.version}", "tag-edited", message)


def _previous(there: Overview, history: Sequence[str]) -> Iterator[Finding]:
    numbers = {one.tags.get("clr.release_digest"): one.version for one in there.releases}
    expected = numbers.get(history[-2]) if len(history) > 1 else None
    alias = there.release_aliases.get("previous")
    on_its_way = there.release_aliases.get("champion")  # moved first, just before this one
    if alias not in (expected, on_its_way):
        message = _moved("previous", alias, expected, "the ledger")
        yield Finding("clr-release", "alias-moved", message)


def alias_problems(
    there: Overview, releases: Mapping[str, Release], moves: Sequence[Entry]
) -> Iterator[Finding]:
    """Yield aliases of tasks that are not where the releases say."""
    serving = serving_release(there, releases)
    before = _former_champions(served(moves), releases)
    for task, aliases in there.aliases.items():
        model = f"clr-{task}"
        if serving is not None:
            champion = serving.tasks.get(task)
            wanted = champion.version if champion else None
            if aliases.get("champion") != wanted:
                message = _moved("champion", aliases.get("champion"), wanted, "the release")
                yield Finding(model, "alias-moved", message)
        if before is not None and aliases.get("previous") != before.get(task):
            message = _moved("previous", aliases.get("previous"), before.get(task), "the ledger")
            yield Finding(model, "alias-moved", message)
    if serving is not None:
        for task in serving.tasks:
            if task not in there.aliases:
                message = "serves by the release, but is not in the registry"
                yield Finding(f"clr-{task}", "version-missing", message)


def _former_champions(
    history: Sequence[str], releases: Mapping[str, Release]
) -> dict[str, int] | None:
    """Return each task's champion before the present one; None where a release cannot be read."""
    now: dict[str, int] = {}
    before: dict[str, int] = {}
    for digest in history:
        release = releases.get(digest)
        if release is None:
            return None
        named = {task: one.version for task, one in release.tasks.items()}
        before |= {task: number for task, number in now.items() if named.get(task) != number}
        now = named
    return before


def _moved(alias: str, found: int | None, wanted: int | None, by: str) -> str:
    place = f"on version {found}" if found else "missing"
    right = f"version {wanted}" if wanted else "no version"
    return f"its alias {alias} is {place}, but {by} says {right}"
