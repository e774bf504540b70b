"""Adapter versions: registered once per idempotency key, found and fetched by digest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from clr.core.files import sha256_file
from clr.errors import UsageError
from clr.registry.faults import calling
from clr.registry.local import locked
from clr.registry.package import BackboneReference, write_package
from clr.registry.release import ChampionRef
from clr.registry.runs import Run, log_metrics
from clr.registry.store import (
    KEY_TAG,
    MOST_VERSIONS,
    RELEASE_MODEL,
    Registry,
    checked_key,
    ensure_model,
    model_name,
)
from clr.registry.upload import create_version, logged_model

CANDIDATE, CHALLENGER, CHAMPION, PREVIOUS = "candidate", "challenger", "champion", "previous"
PENDING = "pending"

# VARCHAR(5000) in MLflow's schema; SQLite does not check, others do
DESCRIPTION_LIMIT = 5000

_MODEL_ID = re.compile(r"models:/(m-[0-9a-f]+)")


@dataclass(frozen=True)
class Version:
    """One registered adapter.

    Attributes:
        task: task name.
        version: its number.
        run_id: run that made it.
        model_id: MLflow logged model that holds the files.
        adapter_digest: of the adapter file, ``sha256:…``.
        data_digest: of the task's data, ``md5:….dir``.
        aliases: those that point here.
        tags: all tags.
        created: milliseconds since 1970, UTC.
    """

    task: str
    version: int
    run_id: str
    model_id: str
    adapter_digest: str
    data_digest: str
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    created: int = 0

    @property
    def uri(self) -> str:
        """The address MLflow loads it by."""
        return f"models:/{model_name(self.task)}/{self.version}"

    @property
    def source(self) -> str:
        """Where its files are, ``models:/m-…``: an address that MLflow gives out only once."""
        return f"models:/{self.model_id}" if self.model_id else ""

    @property
    def review(self) -> str:
        """What a person said: ``pending``, ``approved``, ``rejected`` or whatever they wrote."""
        return self.tags.get("review", PENDING)

    @property
    def accuracy(self) -> float | None:
        """Share of its test images that it labels right; None: nobody wrote down a number."""
        try:
            found = float(self.tags.get("clr.accuracy", "").split()[0])
        except (ValueError, IndexError):
            return None
        return found if isfinite(found) else None


def register_adapter(
    registry: Registry,
    run: Run,
    adapter_path: Path,
    *,
    key: str,
    backbone: BackboneReference,
    data_digest: str,
    card: str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float | int | None] | None = None,
    dataset: Any | None = None,
    title: str = "",
) -> Version:
    """Register the adapter as a version of ``clr-<task>``, once per `key`.

    A process killed at any point leaves what the next call with the same key
    completes: one logged model, one version.

    Args:
        registry: opened registry.
        run: run that trained it.
        adapter_path: adapter file.
        key: idempotency key.
        backbone: how to find the backbone again.
        data_digest: of the task's data.
        card: Markdown shown as the version's description, at most 5,000 characters.
        tags: of the version: clr.verdict, clr.accuracy, clr.retention, clr.gate_release, …
            The digests, the key and ``review: pending`` are added.
        metrics: final measurements, linked to model and dataset.
        dataset: `clr.registry.dataset.DvcDataset` they were measured on.
        title: description of the registered model, on its creation.

    Returns:
        the version, as it was registered first.

    Raises:
        UsageError: the card is too long, or `key` cannot be one.
        ServiceUnavailable: the registry, its disk or its lock cannot be used.
    """
    checked_key(key)
    if len(card) > DESCRIPTION_LIMIT:
        raise UsageError(
            f"The model card has {len(card)} characters; MLflow keeps {DESCRIPTION_LIMIT}.",
            fix="Use clr.registry.card.model_card, which keeps to that.",
        )
    name, digest = model_name(run.task), sha256_file(adapter_path)
    born = {
        **tags,
        KEY_TAG: key,
        "clr.adapter_digest": digest,
        "clr.data_digest": data_digest,
        "clr.backbone_digest": backbone.digest,
        "review": PENDING,
    }
    with (
        locked(registry, f"register-{run.task}"),
        calling(registry.uri, f"register an adapter of {run.task}"),
    ):
        if found := find_version(registry, run.task, key):
            return found
        ensure_model(registry, name, title)
        model_id = _logged_model(registry, run, key, adapter_path, backbone, born, card)
        if metrics:
            log_metrics(registry, run, metrics, model_id=model_id, dataset=dataset)
        return as_version(create_version(registry, name, model_id, run.id, key, born, card))


def _logged_model(
    registry: Registry,
    run: Run,
    key: str,
    adapter_path: Path,
    backbone: BackboneReference,
    facts: Mapping[str, str],
    card: str,
) -> str:
    def fill(folder: Path, model_id: str) -> None:
        about = {name: value for name, value in facts.items() if name != "review"}
        write_package(
            folder,
            adapter_path,
            backbone,
            model_id=model_id,
            run_id=run.id,
            facts=about,
            card=card,
        )

    return logged_model(registry, run, key, f"clr-{run.task}", fill)


def set_candidate(registry: Registry, version: Version) -> None:
    """Point the alias ``candidate`` at `version`, never back from a newer or a decided one."""
    name = model_name(version.task)
    with calling(registry.uri, f"make version {version.version} of {name} the candidate"):
        now = get_version(registry, version.task, version.version)
        decided = {CHAMPION, PREVIOUS} & set(now.aliases) or now.review.strip() != PENDING
        other = registry.client.get_registered_model(name).aliases.get(CANDIDATE)
        if decided or (other is not None and int(other) >= version.version):
            return
        registry.client.set_registered_model_alias(name, CANDIDATE, str(version.version))


def drop_candidate(registry: Registry, version: Version) -> None:
    """Take the alias ``candidate`` from `version`, if it has it: it was rejected."""
    name = model_name(version.task)
    with calling(registry.uri, f"take the candidate of {name} back"):
        now = registry.client.get_registered_model(name).aliases.get(CANDIDATE)
        if now is not None and int(now) == version.version:
            registry.client.delete_registered_model_alias(name, CANDIDATE)


def find_version(registry: Registry, task: str, key: str) -> Version | None:
    """Return the version of `task` registered under the idempotency key `key`, or None."""
    name = model_name(task)
    search = f"name = '{name}' and tags.`{KEY_TAG}` = '{checked_key(key)}'"
    with calling(registry.uri, f"look for a version of {task}"):
        found = registry.client.search_model_versions(search)
        if not found:
            return None
        first = min(int(one.version) for one in found)
        return as_version(registry.client.get_model_version(name, str(first)))


def versions(registry: Registry, task: str) -> list[Version]:
    """Return all versions of `task`, oldest first; none where the task is unknown."""
    name = model_name(task)
    with calling(registry.uri, f"list the versions of {task}"):
        found = sorted(
            map(as_version, registry.client.search_model_versions(f"name = '{name}'")),
            key=lambda one: one.version,
        )
        if not found:
            return []
        # a search leaves the aliases out
        points = registry.client.get_registered_model(name).aliases.items()
    return [
        replace(one, aliases=tuple(sorted(a for a, number in points if int(number) == one.version)))
        for one in found
    ]


def get_version(registry: Registry, task: str, version: int | str) -> Version:
    """Return one version by number or alias.

    Raises:
        UsageError: there is none; names what is there.
    """
    from mlflow.exceptions import MlflowException

    name, number = model_name(task), str(version)
    with calling(registry.uri, f"read version {version} of {name}"):
        try:
            if number.isdecimal():
                asked = str(min(int(number), MOST_VERSIONS))
                return as_version(registry.client.get_model_version(name, asked))
            return as_version(registry.client.get_model_version_by_alias(name, number))
        except MlflowException as error:
            if error.error_code not in (
                "RESOURCE_DOES_NOT_EXIST",
                "INVALID_PARAMETER_VALUE",
            ):
                raise
    known = ", ".join(str(one.version) for one in versions(registry, task)) or "none"
    raise UsageError(
        f"Task {task} has no version {version!r}.", fix=f"Registered versions: {known}."
    )


def tasks(registry: Registry) -> dict[str, dict[str, int]]:
    """Return the aliases of every registered task: {task: {alias: version}}."""
    found: dict[str, dict[str, int]] = {}
    token = None
    with calling(registry.uri, "list the tasks"):
        while True:
            page = registry.client.search_registered_models(max_results=1000, page_token=token)
            for model in page:
                if model.name.startswith("clr-") and model.name != RELEASE_MODEL:
                    aliases = {name: int(number) for name, number in model.aliases.items()}
                    found[model.name.removeprefix("clr-")] = aliases
            token = page.token
            if not token:
                return dict(sorted(found.items()))


def as_version(found: Any) -> Version:
    """Return MLflow's model version as ours."""
    source = _MODEL_ID.match(found.source or "")
    tags = dict(found.tags or {})
    return Version(
        task=found.name.removeprefix("clr-"),
        version=int(found.version),
        run_id=found.run_id or "",
        model_id=source.group(1) if source else "",
        adapter_digest=tags.get("clr.adapter_digest", ""),
        data_digest=tags.get("clr.data_digest", ""),
        aliases=tuple(sorted(found.aliases or ())),
        tags=tags,
        created=int(found.creation_timestamp or 0),
    )


def champion_of(version: Version) -> ChampionRef:
    """Return a version as a release names it."""
    return ChampionRef(
        version.task,
        version.version,
        version.adapter_digest,
        version.data_digest,
        version.run_id,
        version.tags.get("clr.evidence_digest", ""),
    )


def set_version_tags(registry: Registry, version: Version, tags: Mapping[str, str]) -> None:
    """Set tags of a version (``review``, ``review.reason``, …)."""
    name = model_name(version.task)
    with calling(registry.uri, f"tag version {version.version} of {name}"):
        for tag, value in tags.items():
            registry.client.set_model_version_tag(name, str(version.version), tag, value)
