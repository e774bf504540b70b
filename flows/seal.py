"""What a registration seals: the digest of every file of its run, its parameters, its tags.

The digests are a file of the run themselves (``files.json``), whose own digest is a tag that is
set in the same transaction as the version. So a process that was killed before it told the
ledger leaves all that the next one needs to tell it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clr.core.files import canonical_json, sha256_bytes
from clr.errors import IntegrityBroken

if TYPE_CHECKING:
    from clr.registry.versions import Version
    from flows.session import Session

SCHEMA, FILES_FILE = "clr.files/1", "files.json"
FILES_TAG = "clr.files_digest"
GATE_TAGS = ("clr.gate_digest", "clr.gate_release", "clr.router_digest")
"""Change when the gate runs again before a promotion; the ledger then has ``gate.judged``."""

TAGS = (
    *("clr.key", "clr.verdict", "clr.accuracy", "clr.retention", FILES_TAG, *GATE_TAGS),
    *("clr.adapter_digest", "clr.data_digest", "clr.backbone_digest", "clr.code_digest"),
    *("clr.environment_digest", "clr.evidence_digest", "clr.manifest_digest"),
    "clr.validation_digest",
)
"""Tags of a version that nobody changes after its registration, but for `GATE_TAGS`."""


def seal(files: Mapping[str, bytes], params: Mapping[str, str]) -> bytes:
    """Return ``files.json`` of a run.

    Args:
        files: its files by path.
        params: its parameters, as MLflow keeps them.
    """
    digests = {path: sha256_bytes(data) for path, data in files.items()}
    return canonical_json({"schema": SCHEMA, "files": digests, "params": dict(params)})


def read_seal(session: Session, version: Version) -> dict[str, Any]:
    """Return {files, params} of a version's run, checked; empty where it has no seal.

    Versions from before there were seals have none.

    Raises:
        IntegrityBroken: the file is missing, or not the one that the version's tag names.
        ServiceUnavailable: the registry cannot be reached.
    """
    from clr.registry.fetch import fetch
    from clr.registry.local import scratch

    digest = version.tags.get(FILES_TAG, "")
    if not digest:
        return {}
    with scratch(session.registry) as folder:
        data = fetch(session.registry, version.run_id, FILES_FILE, folder).read_bytes()
    if sha256_bytes(data) != digest:
        raise IntegrityBroken(
            f"{FILES_FILE} of {version.task} version {version.version} has been changed.",
            fix="Restore it from a backup, or onboard the task again.",
            task=version.task,
        )
    found = json.loads(data)
    return {"files": {**found["files"], FILES_FILE: digest}, "params": found["params"]}


def sealed_facts(session: Session, version: Version) -> dict[str, Any]:
    """Return what the entry ``adapter.registered`` tells of files, parameters, tags and source.

    Raises:
        IntegrityBroken: see `read_seal`.
        ServiceUnavailable: the registry cannot be reached.
    """
    tags = {name: version.tags[name] for name in TAGS if name in version.tags}
    return {**read_seal(session, version), "tags": tags, "source": version.source}
