"""``release.json``: a state of the whole system, written down and digested (pure)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clr.core.files import canonical_json, sha256_bytes
from clr.errors import IntegrityBroken, UsageError
from clr.registry.store import RELEASE_MODEL, model_name

SCHEMA = "clr.release/1"
RELEASE_FILE = "release.json"

_SHA = re.compile(r"sha256:[0-9a-f]{64}")
_FIELDS = {"schema", "backbone", "tasks", "router", "gate", "previous"}


@dataclass(frozen=True)
class ChampionRef:
    """A task's serving adapter.

    Attributes:
        task: task name.
        version: number of the version of ``clr-<task>``.
        adapter_digest: ``sha256:…`` of the adapter file.
        data_digest: ``md5:….dir`` of its data.
        run_id: run that made it; its artifacts hold the evidence.
        evidence_digest: ``sha256:…`` of what the gate compares with (clr/core/evidence.py).
    """

    task: str
    version: int
    adapter_digest: str
    data_digest: str
    run_id: str
    evidence_digest: str = ""

    def __post_init__(self) -> None:
        model_name(self.task)
        if self.version < 1 or not _SHA.fullmatch(self.adapter_digest):
            raise UsageError(
                f"Not a champion of {self.task}: version {self.version}, "
                f"adapter {self.adapter_digest!r}.",
                fix="Give a version from 1 and a digest sha256:<64 hex>.",
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
                    "evidence": ref.evidence_digest,
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


def check_backbone(release: Release, digest: str) -> None:
    """Refuse a release of another backbone than the one here.

    Args:
        release: what is to serve.
        digest: of the backbone here.

    Raises:
        IntegrityBroken: it is another.
    """
    if digest != release.backbone:
        raise IntegrityBroken(
            f"The backbone here has {digest}, release {release.version} needs {release.backbone}.",
            fix="Set CLR_BACKBONE to the one that the release was made with.",
        )


def parse_release(data: bytes, *, version: int = 0, expected_digest: str = "") -> Release:
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
                task,
                int(ref["version"]),
                ref["adapter"],
                ref["data"],
                ref["run"],
                ref.get("evidence", ""),
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
        raise IntegrityBroken(f"{where} is not of the form {SCHEMA}: {error}") from error
