"""The files of one version that the registry keeps, read whole: hashed, and what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.core.files import canonical_json, sha256_bytes
from clr.errors import IntegrityBroken
from flows.recheck import REPORT_FILE
from flows.session import EVIDENCE_FILE, Session

if TYPE_CHECKING:
    from clr.registry.versions import Version

MANIFEST_FILE, DVC_FILE = "data/manifest.json", "data/data.dvc"
ENVIRONMENT_FILE, VALIDATION_FILE = "environment.json", "validation/validation.json"
OF_RUN = (
    *(MANIFEST_FILE, DVC_FILE, VALIDATION_FILE, ENVIRONMENT_FILE, REPORT_FILE),
    EVIDENCE_FILE,
)


@dataclass(frozen=True)
class Files:
    """What is kept with a version, by name; what is missing or cannot be read is not in it."""

    contents: Mapping[str, bytes]

    def digest(self, name: str) -> str:
        """Return ``sha256:…`` of a file; empty where it is missing."""
        return sha256_bytes(self.contents[name]) if name in self.contents else ""

    def parsed(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file; empty where it is missing or is none."""
        return _object(self.contents.get(name, b""))

    @cached_property
    def evidence(self) -> dict[str, Any]:
        """What the evidence says of itself: adapter, backbone, digests and more."""
        return _header(self.contents.get(EVIDENCE_FILE, b""), "about")

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What the adapter's file says of itself: task, labels, backbone, recipe and more."""
        from clr.registry.package import ADAPTER_FILE

        return _header(self.contents.get(ADAPTER_FILE, b""), "spec")

    @cached_property
    def environment_digest(self) -> str:
        """Digest of the environment, made as when it was recorded; empty where it is missing."""
        found = self.parsed(ENVIRONMENT_FILE)
        return sha256_bytes(canonical_json(found)) if found else ""


def read_files(session: Session, version: Version) -> Files:
    """Read what the registry keeps with a version.

    Raises:
        ServiceUnavailable: the registry cannot be reached.
    """
    from clr.registry.fetch import fetch, fetch_file
    from clr.registry.local import scratch
    from clr.registry.package import ADAPTER_FILE, BACKBONE_FILE
    from clr.registry.store import model_name

    found: dict[str, bytes] = {}
    with scratch(session.registry) as folder:
        for name in OF_RUN:
            _read(found, name, lambda name=name: fetch(
                session.registry, version.run_id, name, folder
            ))  # fmt: skip
        for name in (ADAPTER_FILE, BACKBONE_FILE):
            _read(found, name, lambda name=name: fetch_file(
                session.registry, model_name(version.task), version.version, name, folder
            ))  # fmt: skip
    return Files(found)


def _read(found: dict[str, bytes], name: str, get: Any) -> None:
    try:
        path: Path = get()
        found[name] = path.read_bytes()
    except (IntegrityBroken, OSError):
        pass  # a file that is not there is the finding of whoever needs it


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _header(data: bytes, name: str) -> dict[str, Any]:
    """Return what a safetensors file says of itself, without reading its tensors.

    Its form: 8 bytes, the length of a JSON object that follows, whose ``__metadata__`` is text.
    """
    length = int.from_bytes(data[:8], "little")
    stated = _object(data[8 : 8 + length]).get("__metadata__")
    text = stated.get(name) if isinstance(stated, dict) else None
    return _object(text.encode()) if isinstance(text, str) else {}
