"""Releases and aliases against the ledger: what serves, and what served before (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from flows.activation import ACTIVATED

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.registry.overview import Overview
    from clr.registry.release import Release

Finding = tuple[str, str]
"""What it is about, and what is wrong with it."""


def serving_release(there: Overview, releases: Mapping[str, Release]) -> Release | None:
    """Return what serves by the alias; None at the start, or where its file is damaged."""
    number = there.release_aliases.get("champion")
    return next((one for one in releases.values() if one.version == number), None)


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
            yield "clr-release", f"nothing serves, but by the ledger {told} does"
        return
    serving = serving_release(there, releases)
    if serving is not None:
        yield from _in_force(serving, moves, activations)
        yield from _chain(serving, releases)
    yield from _lost(there, activations)
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
        yield (
            subject,
            "is in force, but the ledger knows nothing of it: no entry release.activated names it",
        )
    elif last is not None:
        yield (
            subject,
            f"is in force, but by entry {last.seq} of the ledger {last.subject} is",
        )


def _chain(serving: Release, releases: Mapping[str, Release]) -> Iterator[Finding]:
    """Follow ``previous`` back to the first release."""
    one, seen = serving, {serving.digest}
    while one.previous:
        before = releases.get(one.previous)
        if before is None or before.digest in seen:
            yield (
                f"clr-release/{one.version}",
                f"follows the release {one.previous}, which is missing or damaged",
            )
            return
        one = before
        seen.add(one.digest)


def _lost(there: Overview, activations: Sequence[Entry]) -> Iterator[Finding]:
    known = {f"clr-release/{one.version}" for one in there.releases}
    for subject in dict.fromkeys(one.subject for one in activations):
        if subject not in known:
            yield subject, "served once by the ledger, but is no longer in the registry"


def _previous(there: Overview, history: Sequence[str]) -> Iterator[Finding]:
    numbers = {one.tags.get("clr.release_digest"): one.version for one in there.releases}
    expected = numbers.get(history[-2]) if len(history) > 1 else None
    alias = there.release_aliases.get("previous")
    if alias != expected:
        yield "clr-release", _moved("previous", alias, expected, "the ledger")


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
                yield model, _moved("champion", aliases.get("champion"), wanted, "the release")
        if before is not None and aliases.get("previous") != before.get(task):
            yield (
                model,
                _moved("previous", aliases.get("previous"), before.get(task), "the ledger"),
            )
    if serving is not None:
        for task in serving.tasks:
            if task not in there.aliases:
                yield f"clr-{task}", "serves by the release, but is not in the registry"


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
