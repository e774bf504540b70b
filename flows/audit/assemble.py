"""Write what was found of one version as the document ``clr.audit/1`` (pure).

What an older version does not have is null, never missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from clr.audit.document import SCHEMA, Document
from flows.audit import history
from flows.audit.data import pinned_path
from flows.audit.files import (
    DVC_FILE,
    ENVIRONMENT_FILE,
    VALIDATION_FILE,
)
from flows.audit.gather import Found
from flows.recheck import REPORT_FILE
from flows.recorded import APPROVED, REJECTED
from flows.session import EVIDENCE_FILE

Section = dict[str, Any]
_NUMERIC = re.compile(r"cpu=(?P<hardware>.+) \S+ threads=(?P<threads>\d+)$")


def sections(found: Found) -> Document:
    """Return the document but for ``asked`` and ``verdict``."""
    return {
        "schema": SCHEMA,
        "subject": found.subject,
        "task": found.version.task,
        "version": found.version.version,
        "title": found.title or None,
        "data": _data(found),
        "validation": _validation(found),
        "code": {"digest": _first(found, "code", "clr.code_digest", "code_digest")},
        "environment": _environment(found),
        "backbone": _backbone(found),
        "training": _training(found),
        "adapter": _adapter(found),
        "gate": _gate(found),
        "registration": _registration(found),
        "registry": _registry(found),
        "reviews": [_review(one) for one in found.about if one.action in (APPROVED, REJECTED)],
        "service": [_service(one) for one in found.periods],
        "replaced_by": history.replacement(found.history, found.version.version),
        "ledger": _ledger(found),
    }


def _first(found: Found, ledger: str, tag: str = "", param: str = "") -> Any:
    """Return a fact by its most trustworthy record; None where nobody recorded it."""
    params = found.run.params if found.run else {}
    return found.recorded.get(ledger) or found.version.tags.get(tag) or params.get(param) or None


def _time(milliseconds: int) -> str | None:
    if not milliseconds:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _data(found: Found) -> Section:
    source = found.run.source if found.run else {}
    profile = found.run.profile if found.run else {}
    manifest = found.data.manifest
    rows = manifest.rows if manifest else ()
    return {
        "digest": _first(found, "data", "clr.data_digest"),
        "manifest": manifest.digest if manifest else profile.get("manifest"),
        "dvc_file": source.get("data_dvc") or found.files.digest(DVC_FILE) or None,
        "commit": found.recorded.get("commit", source.get("git_commit")),
        "dirty": found.recorded.get("dirty", source.get("git_dirty")),
        "remote": source.get("remote"),
        "train": profile.get("train", manifest.train if manifest else None),
        "test": profile.get("test", manifest.test if manifest else None),
        "classes": profile.get("classes", list(manifest.classes) if manifest else None),
        "images": [
            {
                "path": pinned_path(row.split, row.path),
                "sha256": row.sha256,
                "split": row.split,
                "class": row.label,
            }
            for row in rows
        ]
        if manifest
        else None,
        "same_bytes": found.data.same_bytes,
    }


def _validation(found: Found) -> Section:
    report = found.files.parsed(VALIDATION_FILE)
    findings = report.get("findings")
    warnings = [
        f"{one['name']}: {one['message']}"
        for one in findings or ()
        if not one["ok"] and one["severity"] == "warning"
    ]
    return {
        "success": report.get("success"),
        "expectations": None if findings is None else len(findings),
        "warnings": None if findings is None else warnings,
        "digest": found.recorded.get("validation") or found.files.digest(VALIDATION_FILE) or None,
        "artifact": VALIDATION_FILE if report else None,
    }


def _environment(found: Found) -> Section:
    kept = found.files.parsed(ENVIRONMENT_FILE)
    names = ("python", "platform", "torch", "torchvision", "timm")
    return {
        "digest": _first(found, "environment", param="environment_digest"),
        **{name: kept.get(name) for name in names},
        "packages": len(kept) - 2 if kept else None,
        "artifact": ENVIRONMENT_FILE if kept else None,
    }


def _backbone(found: Found) -> Section:
    from clr.registry.package import BACKBONE_FILE

    kept = found.files.parsed(BACKBONE_FILE)
    sha256 = kept.get("sha256")
    return {
        **{name: kept.get(name) for name in ("name", "source", "licence")},
        "digest": _first(found, "backbone", "clr.backbone_digest", "backbone_digest"),
        "architecture": kept.get("architecture"),
        "sha256": f"sha256:{sha256}" if sha256 else None,
        "pretrained": kept.get("pretrained"),
    }


def _training(found: Found) -> Section:
    run = found.run
    params: Mapping[str, str] = run.params if run else {}
    metrics = dict(run.metrics) if run else {}
    seconds = {name: value for name, value in metrics.items() if name.startswith("seconds.")}
    measured = _measured_on(str(found.files.evidence.get("environment", "")))
    return {
        "run_id": found.version.run_id or None,
        "recipe": found.files.spec.get("recipe"),
        "seed": _integer(params.get("seed")),
        "device": params.get("device"),
        "hardware": params.get("hardware", measured["hardware"]),
        "threads": _integer(params.get("threads", measured["threads"])),
        "started": _time(run.started) if run else None,
        "ended": _time(run.ended) if run else None,
        "seconds": {name.partition(".")[2]: value for name, value in seconds.items()} or None,
        "metrics": {
            name: value for name, value in metrics.items() if not name.startswith("seconds.")
        }
        or None,
    }


def _measured_on(line: str) -> Mapping[str, Any]:
    """Return hardware and threads out of the line that `provenance.numeric_environment` makes."""
    stated = _NUMERIC.search(line)
    return stated.groupdict() if stated else {"hardware": None, "threads": None}


def _adapter(found: Found) -> Section:
    from clr.registry.package import ADAPTER_FILE

    about = found.files.evidence
    kept = found.files.contents.get(ADAPTER_FILE)
    return {
        "digest": _first(found, "adapter", "clr.adapter_digest"),
        "bytes": about.get("adapter_bytes", None if kept is None else len(kept)),
        "params": about.get("params"),
        "variant": found.files.spec.get("variant"),
        "present": kept is not None,
    }


def _gate(found: Found) -> Section:
    report = found.files.parsed(REPORT_FILE)
    checks = report.get("checks")
    fields = ("task", "verdict", "observed", "limit", "how", "evidence", "message")
    return {
        "digest": found.recorded.get("gate") or found.files.digest(REPORT_FILE) or None,
        "verdict": report.get("verdict"),
        "sentence": report.get("sentence"),
        "release": report.get("release", found.recorded.get("release")),
        "checks": checks,
        "evidence": _first(found, "evidence", "clr.evidence_digest")
        or found.files.digest(EVIDENCE_FILE)
        or None,
        "retention": None
        if checks is None
        else [{name: one[name] for name in fields} for one in checks if one["name"] == "retention"],
    }


def _registration(found: Found) -> Section:
    """Return who registered it: by the server's password check, else as the command recorded."""
    records = found.told.records
    entry = records.created.get(found.version.source) or records.registered.get(found.subject)
    return {
        "entry": entry.seq if entry else None,
        "time": entry.time if entry else None,
        "actor": entry.actor if entry else None,
        "authentication": entry.authentication if entry else None,
        "verdict": _first(found, "verdict", "clr.verdict"),
    }


def _registry(found: Found) -> Section:
    return {
        "address": found.address or None,
        "experiment": found.run.experiment if found.run else None,
        "model": f"clr-{found.version.task}",
        "source": found.version.source or None,
    }


def _review(entry: Any) -> Section:
    return {
        "entry": entry.seq,
        "decision": entry.action.partition(".")[2],
        "reviewer": entry.actor,
        "time": entry.time,
        "reason": str(entry.payload.get("reason") or ""),
        "authentication": entry.authentication,
    }


def _service(one: history.Period) -> Section:
    return {
        "release": one.release,
        "digest": one.digest,
        "from": one.begin,
        "to": one.end or None,
        "entry": one.entry.seq,
        "gate": one.gate or None,
        "joined": one.joined,
    }


def _ledger(found: Found) -> Section:
    """Return every entry about the version: of itself, and of the releases around its service."""
    seqs = {one.seq for one in found.about}
    created = found.told.records.created.get(found.version.source)
    seqs |= {created.seq} if created else set()
    for one in found.history:
        around = one.order if one.order is not None else one.entry
        if one.digest in found.admitted or one.digest in _after(found):
            seqs |= {one.entry.seq, around.seq}
    head = found.told.head
    return {
        "entries": [one.as_dict() for one in found.told.entries if one.seq in seqs],
        "count": len(found.told.entries),
        "head": None
        if head is None
        else {
            "seq": head.seq,
            "hash": head.hash,
            "key_id": head.key_id,
            "signature": head.signature,
        },
        "intact": not found.told.problems,
    }


def _after(found: Found) -> set[str]:
    """Return the releases that ended a time of its service."""
    number = found.version.version
    return {
        after.digest
        for before, after in zip(found.history, found.history[1:], strict=False)
        if before.version == number != after.version
    }
