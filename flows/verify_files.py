"""The bytes behind registered versions, against what was recorded of them at registration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError
from flows.findings import Finding
from flows.recorded import Records, subject
from flows.seal import FILES_FILE, FILES_TAG
from flows.session import EVIDENCE_FILE, Session

if TYPE_CHECKING:
    from clr.registry.versions import Version

MISSING = "missing"


def recorded_facts(version: Version, records: Records) -> Mapping[str, Any]:
    """Return what the ledger recorded of a version: {adapter, evidence, files, params, tags, …}.

    From ``adapter.registered``, else from what a server saw; empty where neither knows it.
    """
    registered = records.registered.get(subject(version))
    if registered is not None:
        return registered.payload
    created = records.created.get(version.source)
    if created is None:
        return {}
    tags = created.payload.get("tags")
    known = tags if isinstance(tags, dict) else {}
    return {
        "adapter": created.payload.get("actual"),
        "evidence": known.get("clr.evidence_digest", ""),
        "source": version.source,
        "files": {FILES_FILE: known[FILES_TAG]} if FILES_TAG in known else {},
    }


def is_sealed(version: Version, records: Records) -> bool:
    """Say whether the ledger has the digests of the files of a version's run."""
    return bool(recorded_facts(version, records).get("files"))


def file_findings(session: Session, version: Version, records: Records) -> Iterator[Finding]:
    """Yield what is wrong with the files of a version, of its run, and with its parameters.

    Raises:
        ServiceUnavailable: the registry cannot be reached.
    """
    from clr.registry.fetch import fetch_adapter
    from clr.registry.lineage import read_run
    from clr.registry.local import scratch

    name, facts = subject(version), recorded_facts(version, records)
    with scratch(session.registry) as folder:
        right = str(facts.get("adapter") or version.adapter_digest)
        found = _digest(
            lambda: fetch_adapter(session.registry, version.task, version.version, folder)
        )
        if found != right:
            yield Finding(name, "adapter-changed", _differs("adapter file", found, right))
        yield from _of_run(session, version, facts, folder)
    params = facts.get("params")
    run = read_run(session.registry, version.run_id) if params else None
    if params and run is not None:
        for param in sorted({*params, *run.params}):
            was, now = params.get(param), run.params.get(param)
            if was is not None and now != was:
                message = f"its run says {param} is {now!r}, the ledger {was!r}"
                yield Finding(name, "param-edited", message)


def _of_run(
    session: Session, version: Version, facts: Mapping[str, Any], folder: Path
) -> Iterator[Finding]:
    from clr.registry.fetch import fetch_files

    evidence = str(facts.get("evidence") or version.tags.get("clr.evidence_digest", ""))
    files = {EVIDENCE_FILE: evidence, **(facts.get("files") or {})}
    places = fetch_files(session.registry, version.run_id, sorted(files), folder)
    for path, right in sorted(files.items()):
        place = places.get(path)
        found = _digest(lambda place=place: place) if place is not None else MISSING
        if found != right:
            kind = "evidence-changed" if path == EVIDENCE_FILE else "file-changed"
            yield Finding(subject(version), kind, _differs(f"file {path}", found, right))


def _digest(place: Any) -> str:
    """Return the digest of the file that `place()` finds; a word where there is none."""
    from clr.core.files import sha256_file

    try:
        path: Path = place()
        return sha256_file(path) if path.is_file() else MISSING
    except (ClrError, OSError) as error:
        return str(error) or MISSING


def _differs(what: str, found: str, right: str) -> str:
    return f"its {what} is {found}; recorded was {right or 'none'}"
