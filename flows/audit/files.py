"""The files of one version that the registry keeps, read whole: hashed, and what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
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


def read_files(session: Session, version: Version, *, registered: bool) -> Files:
    """Read what the registry keeps with a version: files of its run, and of its model.

    Args:
        session: the workspace.
        version: any version.
        registered: whether the registry still has it, so that its model can be found.

    Raises:
        ServiceUnavailable: the registry cannot be reached.
    """
    from clr.registry.fetch import fetch_file, fetch_files
    from clr.registry.local import scratch
    from clr.registry.package import ADAPTER_FILE, BACKBONE_FILE
    from clr.registry.store import model_name

    registry, model = session.registry, model_name(version.task)
    found: dict[str, bytes] = {}
    with scratch(registry) as folder:
        for name, path in fetch_files(registry, version.run_id, OF_RUN, folder).items():
            with _missing_is_a_finding():
                found[name] = path.read_bytes()
        for name in (ADAPTER_FILE, BACKBONE_FILE) if registered else ():
            with _missing_is_a_finding():
                path = fetch_file(registry, model, version.version, name, folder)
                found[name] = path.read_bytes()
    return Files(found)


def _missing_is_a_finding() -> AbstractContextManager[None]:
    """Leave out what is not there: who recorded its digest will miss it."""
    return suppress(IntegrityBroken, OSError)


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
