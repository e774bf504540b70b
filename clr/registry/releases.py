"""Releases: what serves as a whole, written down, digested, and moved in one step.

``release.json`` is the truth about champions; the aliases on the tasks' models
repeat it for people. One alias, ``champion`` of ``clr-release``, decides what
serves, so moving it is the one moment in which a promotion happens. What comes
before that moment changes nothing that serves; what comes after repeats what the
release says and is completed by the next call, should a process be killed.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clr.core.files import canonical_json, sha256_bytes
from clr.errors import GateRefused, IntegrityBroken, ServiceUnavailable, UsageError
from clr.registry.faults import calling
from clr.registry.fetch import fetch_file
from clr.registry.runs import find_or_start_run, finish
from clr.registry.store import (
    KEY_TAG,
    RELEASE_EXPERIMENT,
    RELEASE_MODEL,
    Registry,
    ensure_model,
    model_name,
)
from clr.registry.versions import (
    CANDIDATE,
    CHAMPION,
    PREVIOUS,
    create_version,
    logged_model,
)

SCHEMA = "clr.release/1"
RELEASE_FILE = "release.json"

_SHA = re.compile(r"sha256:[0-9a-f]{64}")
_FIELDS = {"schema", "backbone", "tasks", "router", "gate", "previous"}


class StaleGate(GateRefused):
    """Another promotion came first: the gate was run against a release that no longer serves."""


@dataclass(frozen=True)
class ChampionRef:
    """A task's serving adapter.

    Attributes:
        task: task name.
        version: number of the version of ``clr-<task>``.
        adapter_digest: ``sha256:…`` of the adapter file.
        data_digest: ``md5:….dir`` of its data.
        run_id: run that made it; its artifacts hold the evidence.
    """

    task: str
    version: int
    adapter_digest: str
    data_digest: str
    run_id: str

    def __post_init__(self) -> None:
        model_name(self.task)
        if self.version < 1 or not _SHA.fullmatch(self.adapter_digest):
            raise UsageError(
                f"Not a champion of {self.task}: {self.version}, {self.adapter_digest}"
            )


@dataclass(frozen=True)
class Release:
    """A state of the whole system; its `digest` covers every field but `version`.

    Attributes:
        backbone: digest of the one backbone.
        tasks: champion of each task.
        router: digest of the router.
        gate: digest of the gate report that admitted the last change.
        previous: digest of the release before; empty for the first.
        version: number of the version of ``clr-release``; 0 while not written.
    """

    backbone: str
    tasks: Mapping[str, ChampionRef]
    router: str = ""
    gate: str = ""
    previous: str = ""
    version: int = field(default=0, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return ``release.json``."""
        return {
            "schema": SCHEMA,
            "backbone": self.backbone,
            "tasks": {
                task: {
                    "version": ref.version,
                    "adapter": ref.adapter_digest,
                    "data": ref.data_digest,
                    "run": ref.run_id,
                }
                for task, ref in sorted(self.tasks.items())
            },
            "router": self.router,
            "gate": self.gate,
            "previous": self.previous,
        }

    @property
    def digest(self) -> str:
        """The sha256 of ``release.json``, which is canonical JSON."""
        return sha256_bytes(canonical_json(self.to_dict()))


def parse_release(
    data: bytes, *, version: int = 0, expected_digest: str = ""
) -> Release:
    """Return the release that `data` (``release.json``) holds.

    Raises:
        IntegrityBroken: not `expected_digest`, or not of the form clr.release/1.
    """
    where = f"release.json of {RELEASE_MODEL} version {version}"
    if expected_digest and sha256_bytes(data) != expected_digest:
        raise IntegrityBroken(
            f"{where} should have {expected_digest}, but has {sha256_bytes(data)}.",
            fix="Restore it from a backup, or roll back to an earlier release.",
        )
    try:
        raw = json.loads(data)
        if set(raw) != _FIELDS or raw["schema"] != SCHEMA:
            raise ValueError(f"schema {raw.get('schema')!r}, fields {sorted(raw)}")
        champions = {
            task: ChampionRef(
                task, int(ref["version"]), ref["adapter"], ref["data"], ref["run"]
            )
            for task, ref in raw["tasks"].items()
        }
        return Release(
            raw["backbone"],
            champions,
            raw["router"],
            raw["gate"],
            raw["previous"],
            version,
        )
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise IntegrityBroken(
            f"{where} is not of the form {SCHEMA}: {error}"
        ) from error


def current_release(registry: Registry) -> Release | None:
    """Return the release that serves, its bytes checked against its digest; None at the start."""
    return _release_at(registry, CHAMPION)


def get_release(registry: Registry, version: int) -> Release:
    """Return the release with this number.

    Raises:
        UsageError: there is none.
    """
    found = _release_at(registry, str(version))
    if found is None:
        raise UsageError(
            f"There is no release {version}.", fix="`clr status` lists releases."
        )
    return found


def _release_at(registry: Registry, version: str) -> Release | None:
    from mlflow.exceptions import MlflowException

    with calling(registry.uri, "read the release"):
        try:
            found = (
                registry.client.get_model_version(RELEASE_MODEL, version)
                if version.isdecimal()
                else registry.client.get_model_version_by_alias(RELEASE_MODEL, version)
            )
        except MlflowException as error:
            if error.error_code in (
                "RESOURCE_DOES_NOT_EXIST",
                "INVALID_PARAMETER_VALUE",
            ):
                return None
            raise
        number = int(found.version)
        with tempfile.TemporaryDirectory() as folder:
            path = fetch_file(
                registry, RELEASE_MODEL, number, RELEASE_FILE, Path(folder)
            )
            if not path.is_file():
                raise IntegrityBroken(f"Release {number} has no {RELEASE_FILE}: {path}")
            data = path.read_bytes()
    digest = found.tags.get("clr.release_digest") or found.tags.get(KEY_TAG, "missing")
    return parse_release(data, version=number, expected_digest=digest)


def champions(registry: Registry) -> dict[str, ChampionRef]:
    """Return every task's champion, from the release that serves: two calls for any number."""
    release = current_release(registry)
    return dict(release.tasks) if release else {}


def write_release(registry: Registry, release: Release) -> Release:
    """Write `release` as a version of ``clr-release``, once per digest; nothing serves it yet."""
    key = release.digest
    run = find_or_start_run(
        registry, "-", key, name="release", experiment=RELEASE_EXPERIMENT
    )

    def fill(folder: Path, model_id: str) -> None:
        from mlflow.models import Model

        (folder / RELEASE_FILE).write_bytes(canonical_json(release.to_dict()))
        model = Model(run_id=run.id, model_id=model_id)
        model.add_flavor("clr_release", schema=SCHEMA, file=RELEASE_FILE, digest=key)
        model.save(str(folder / "MLmodel"))

    ensure_model(
        registry, RELEASE_MODEL, "What serves: one version a state of the whole system."
    )
    tags = {
        KEY_TAG: key,
        "clr.release_digest": key,
        "clr.tasks": str(len(release.tasks)),
        "clr.previous_release": release.previous,
    }
    with calling(registry.uri, "write the release"):
        model_id = logged_model(registry, run, key, RELEASE_MODEL, fill)
        create_version(
            registry, RELEASE_MODEL, model_id, run.id, key, tags, _describe(release)
        )
        finish(registry, run)
        search = f"name = '{RELEASE_MODEL}' and tags.`{KEY_TAG}` = '{key}'"
        found = registry.client.search_model_versions(search)
    return replace(release, version=min(int(one.version) for one in found))


def _describe(release: Release, limit: int = 40) -> str:
    rows = [
        f"| {task} | {ref.version} |" for task, ref in sorted(release.tasks.items())
    ]
    more = (
        [f"\n… and {len(rows) - limit} more in {RELEASE_FILE}."]
        if len(rows) > limit
        else []
    )
    head = f"Release of {len(rows)} task(s). Digest `{release.digest}`.\n"
    return "\n".join([head, "| task | version |", "|---|---|", *rows[:limit], *more])


def activate(registry: Registry, release: Release) -> None:
    """Make a written release the one that serves, then repeat it in the tasks' aliases.

    Killed at any point, the same call completes it; until the alias ``champion`` of
    ``clr-release`` moves, the old release serves whole, afterwards the new one.
    """
    if release.version < 1:
        raise UsageError("A release must be written before it can serve.")
    before = current_release(registry)
    client = registry.client
    with calling(registry.uri, f"make release {release.version} serve"):
        if before is not None and before.version != release.version:
            client.set_registered_model_alias(
                RELEASE_MODEL, PREVIOUS, str(before.version)
            )
        if before is None or before.version != release.version:
            client.set_registered_model_alias(
                RELEASE_MODEL, CHAMPION, str(release.version)
            )
    settle(registry, release)


def settle(
    registry: Registry, release: Release, *, everything: bool = False
) -> list[str]:
    """Make the tasks' aliases say what `release` says; return the tasks that were behind.

    Looks only at tasks that differ from the release before, unless `everything`.
    """
    before = _before(registry, release)
    behind = []
    for task in sorted(set(release.tasks) | set(before)):
        now, then = release.tasks.get(task), before.get(task)
        unchanged = now is not None and then is not None and now.version == then.version
        if (everything or not unchanged) and _settle_task(registry, task, now):
            behind.append(task)
    return behind


def _before(registry: Registry, release: Release) -> Mapping[str, ChampionRef]:
    old = _release_at(registry, PREVIOUS)
    return old.tasks if old is not None and old.version != release.version else {}


def _settle_task(registry: Registry, task: str, champion: ChampionRef | None) -> bool:
    name, client = model_name(task), registry.client
    with calling(registry.uri, f"move the aliases of {name}"):
        aliases = {
            a: int(v) for a, v in client.get_registered_model(name).aliases.items()
        }
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
) -> Release:
    """Put `champion` into a new release and make it serve; idempotent.

    Args:
        registry: opened registry.
        champion: the adapter that passed gate and review.
        gate_release: digest of the release its gate was run against; empty for none.
        backbone: digest of the backbone.
        router: digest of the router with the newcomer.
        gate: digest of the gate report.

    Raises:
        StaleGate: another promotion came first; run the gate again.
        ServiceUnavailable: another process on this machine is promoting for too long.
    """
    with promoting(registry):
        now = current_release(registry)
        if now is not None:
            settle(registry, now)
            if now.tasks.get(champion.task) == champion:
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
            registry, Release(backbone, refs, router, gate, gate_release)
        )
        activate(registry, release)
    return release


@contextmanager
def promoting(registry: Registry, *, seconds: float = 120) -> Iterator[None]:
    """Let one process of this machine promote at a time; a killed one frees its place."""
    import fcntl
    import time

    with calling(registry.uri, "lock promotions"):
        registry.cache.mkdir(parents=True, exist_ok=True)
        with (registry.cache / "promote.lock").open("ab") as file:
            give_up = time.monotonic() + seconds
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up:
                        raise ServiceUnavailable(
                            f"Another process has been promoting for {seconds:.0f} s: {file.name}",
                            fix="Wait for it or end it, then run the same command again.",
                        ) from None
                    time.sleep(0.05)
            yield
