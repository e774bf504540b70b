"""Releases: what serves as a whole, written down, digested, and moved in one step.

``release.json`` is the truth about champions; the aliases on the tasks' models
repeat it for people. One alias, ``champion`` of ``clr-release``, decides what
serves, so moving it is the one moment in which a promotion happens. What comes
before that moment changes nothing that serves; what comes after repeats what the
release says and is completed by the next call, should a process be killed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from clr.core.files import canonical_json
from clr.errors import GateRefused, IntegrityBroken, UsageError
from clr.registry.faults import calling
from clr.registry.fetch import fetch_file
from clr.registry.local import locked, scratch
from clr.registry.release import RELEASE_FILE, SCHEMA, ChampionRef, Release, parse_release
from clr.registry.runs import find_or_start_run, finish
from clr.registry.store import (
    KEY_TAG,
    MOST_VERSIONS,
    RELEASE_DESCRIPTION,
    RELEASE_EXPERIMENT,
    RELEASE_MODEL,
    Registry,
    checked_key,
    ensure_model,
    model_name,
)
from clr.registry.upload import create_version, logged_model
from clr.registry.versions import CANDIDATE, CHAMPION, PREVIOUS, tasks

_LOG = logging.getLogger(__name__)


class StaleGate(GateRefused):
    """Another promotion came first: the gate was run against a release that no longer serves."""


def current_release(registry: Registry) -> Release | None:
    """Return the release that serves, its bytes checked against its digest; None at the start."""
    return _release_at(registry, CHAMPION)


def get_release(registry: Registry, version: int) -> Release:
    """Return the release with this number.

    Raises:
        UsageError: there is none.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _read(registry, min(version, MOST_VERSIONS))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UsageError(
            f"There is no release {version}.", fix="`clr status` lists releases."
        ) from error


def find_release(registry: Registry, digest: str) -> Release | None:
    """Return the written release with this digest, whether it ever served or not."""
    search = f"name = '{RELEASE_MODEL}' and tags.`{KEY_TAG}` = '{checked_key(digest)}'"
    with calling(registry.uri, "look for a release"):
        found = registry.client.search_model_versions(search)
    return _read(registry, min(int(one.version) for one in found)) if found else None


def serving_version(registry: Registry) -> tuple[int, str, str] | None:
    """Return number, digest and previous digest of what serves, by its tags; None at the start.

    Unlike `current_release` this also answers where the release's file is damaged.
    """
    number = _aliases(registry).get(CHAMPION)
    if number is None:
        return None
    with calling(registry.uri, f"read release {number}"):
        tags = registry.client.get_model_version(RELEASE_MODEL, str(number)).tags
    return number, tags.get("clr.release_digest", ""), tags.get("clr.previous_release", "")


def _aliases(registry: Registry) -> dict[str, int]:
    from mlflow.exceptions import MlflowException

    with calling(registry.uri, "find the release"):
        try:
            found = registry.client.get_registered_model(RELEASE_MODEL).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
    return {alias: int(number) for alias, number in found.items()}


def _release_at(registry: Registry, alias: str) -> Release | None:
    number = _aliases(registry).get(alias)
    return None if number is None else _read(registry, number)


def _read(registry: Registry, number: int) -> Release:
    """Return a release, checked; from a server each is read once, since it never changes."""
    if number in registry._releases:
        return registry._releases[number]
    with calling(registry.uri, f"read release {number}"), scratch(registry) as folder:
        tags = registry.client.get_model_version(RELEASE_MODEL, str(number)).tags
        data = fetch_file(registry, RELEASE_MODEL, number, RELEASE_FILE, folder).read_bytes()
    digest = tags.get("clr.release_digest", "missing")
    release = parse_release(data, version=number, expected_digest=digest)
    if not registry.embedded:
        if len(registry._releases) >= 16:  # a long-lived process sees many
            registry._releases.pop(next(iter(registry._releases)))
        registry._releases[number] = release
    return release


def write_release(
    registry: Registry, release: Release, files: Mapping[str, bytes] | None = None
) -> Release:
    """Write `release` as a version of ``clr-release``, once per digest; nothing serves it yet.

    Args:
        registry: opened registry.
        release: what shall serve.
        files: kept beside ``release.json`` under these names, e.g. the gate's report.
    """
    key = release.digest
    run = find_or_start_run(registry, "-", key, name="release", experiment=RELEASE_EXPERIMENT)

    def fill(folder: Path, model_id: str) -> None:
        from mlflow.models import Model

        (folder / RELEASE_FILE).write_bytes(canonical_json(release.to_dict()))
        for name, data in (files or {}).items():
            (folder / name).write_bytes(data)
        model = Model(run_id=run.id, model_id=model_id)
        model.add_flavor("clr_release", schema=SCHEMA, file=RELEASE_FILE, digest=key)
        model.save(str(folder / "MLmodel"))

    ensure_model(registry, RELEASE_MODEL, RELEASE_DESCRIPTION)
    tags = {
        KEY_TAG: key,
        "clr.release_digest": key,
        "clr.tasks": str(len(release.tasks)),
        "clr.previous_release": release.previous,
    }
    with locked(registry, "write-release"), calling(registry.uri, "write the release"):
        model_id = logged_model(registry, run, key, RELEASE_MODEL, fill)
        about = _describe(release)
        made = create_version(registry, RELEASE_MODEL, model_id, run.id, key, tags, about)
        finish(registry, run)
    return replace(release, version=int(made.version))


def _describe(release: Release, limit: int = 40) -> str:
    rows = [f"| {task} | {ref.version} |" for task, ref in sorted(release.tasks.items())]
    more = [f"\n… and {len(rows) - limit} more in {RELEASE_FILE}."] if len(rows) > limit else []
    head = f"Release of {len(rows)} task(s). Digest `{release.digest}`.\n"
    return "\n".join([head, "| task | version |", "|---|---|", *rows[:limit], *more])


def activate(registry: Registry, release: Release, *, everything: bool = False) -> None:
    """Make a written release the one that serves, then repeat it in the tasks' aliases.

    Killed at any point, the same call completes it; until the alias ``champion`` of
    ``clr-release`` moves, the old release serves whole, afterwards the new one. A
    broken release can be left this way: its own file is not needed.

    Args:
        registry: opened registry.
        release: what shall serve, written before.
        everything: compare the aliases of all tasks, not only of those that change.

    Raises:
        UsageError: `release` was never written.
        ServiceUnavailable: the registry, or the lock of promotions, cannot be used.
    """
    with locked(registry, "promote"):
        _activate(registry, release, everything=everything)


def _activate(registry: Registry, release: Release, *, everything: bool = False) -> None:
    if release.version < 1:
        raise UsageError(
            "A release must be written before it can serve.", fix="Call write_release first."
        )
    client, serving = registry.client, _aliases(registry).get(CHAMPION)
    moving = serving != release.version
    if moving and serving is not None:
        try:
            settle(registry, get_release(registry, serving))  # perhaps half told
        except IntegrityBroken as error:
            everything = True
            _LOG.warning("Leaving a broken release: %s", error)
    with calling(registry.uri, f"make release {release.version} serve"):
        if moving and serving is not None:
            client.set_registered_model_alias(RELEASE_MODEL, PREVIOUS, str(serving))
        if moving:
            client.set_registered_model_alias(RELEASE_MODEL, CHAMPION, str(release.version))
    settle(registry, release, everything=everything)


def settle(registry: Registry, release: Release, *, everything: bool = False) -> list[str]:
    """Make the tasks' aliases say what `release` says; return the tasks that were behind.

    Looks only at tasks that differ from the release before, unless `everything`.
    """
    before = None if everything else _before(registry, release)
    if before is None:
        marked = {task for task, aliases in tasks(registry).items() if CHAMPION in aliases}
        suspects = marked | set(release.tasks)
    else:
        suspects = {
            task
            for task in set(release.tasks) | set(before)
            if release.tasks.get(task) != before.get(task)
        }
    return [
        task for task in sorted(suspects) if _settle_task(registry, task, release.tasks.get(task))
    ]


def _before(registry: Registry, release: Release) -> Mapping[str, ChampionRef] | None:
    """Return the champions of the release before; None where its file is damaged."""
    try:
        old = _release_at(registry, PREVIOUS)
    except IntegrityBroken:
        return None
    return old.tasks if old is not None and old.version != release.version else {}


def _settle_task(registry: Registry, task: str, champion: ChampionRef | None) -> bool:
    name, client = model_name(task), registry.client
    with calling(registry.uri, f"move the aliases of {name}"):
        aliases = {a: int(v) for a, v in client.get_registered_model(name).aliases.items()}
        now = aliases.get(CHAMPION)
        changed = now != (champion.version if champion else None)
        if changed and now is not None:
            client.set_registered_model_alias(name, PREVIOUS, str(now))
        if champion is None:
            if now is not None:
                client.delete_registered_model_alias(name, CHAMPION)
            return changed
        if changed:
            client.set_registered_model_alias(name, CHAMPION, str(champion.version))
        if aliases.get(CANDIDATE) == champion.version:
            client.delete_registered_model_alias(name, CANDIDATE)
            changed = True
    return changed


def promote(
    registry: Registry,
    champion: ChampionRef,
    *,
    gate_release: str,
    backbone: str,
    router: str = "",
    gate: str = "",
    files: Mapping[str, bytes] | None = None,
) -> Release:
    """Put `champion` into a new release and make it serve; idempotent.

    Args:
        registry: opened registry.
        champion: the adapter that passed gate and review.
        gate_release: digest of the release its gate was run against; empty for none.
        backbone: digest of the backbone.
        router: digest of the router with the newcomer.
        gate: digest of the gate report.
        files: kept beside ``release.json``, e.g. that report.

    Raises:
        StaleGate: another promotion came first; run the gate again.
        ServiceUnavailable: another process on this machine is promoting for too long.
    """
    with locked(registry, "promote"):
        now = current_release(registry)
        if now is not None and now.tasks.get(champion.task) == champion:
            settle(registry, now)
            return now
        if (now.digest if now else "") != gate_release:
            raise StaleGate(
                f"The gate of {champion.task} version {champion.version} was run against another "
                "release than the one that serves now.",
                fix=f"Run `clr onboard` for {champion.task} again: the gate runs anew.",
                task=champion.task,
            )
        refs = {**(now.tasks if now else {}), champion.task: champion}
        release = write_release(
            registry, Release(backbone, refs, router, gate, gate_release), files
        )
        _activate(registry, release)
    return release
