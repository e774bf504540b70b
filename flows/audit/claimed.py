"""Who states what about one version, link by link: the table that the verdict rests on (pure).

In each row the ledger comes first, whose entries are chained and signed, then the registry's
database, then reports; what was computed from bytes is compared with the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clr.audit.claims import Claim
from flows.audit.files import (
    DVC_FILE,
    ENVIRONMENT_FILE,
    MANIFEST_FILE,
    VALIDATION_FILE,
)
from flows.audit.gather import Found
from flows.facts import VERDICTS
from flows.recheck import REPORT_FILE
from flows.session import EVIDENCE_FILE


def claims(found: Found) -> Iterator[Claim]:
    """Yield all facts of a version that more than one record states, in the chain's order."""
    yield from _data(found)
    yield from _making(found)
    yield from _adapter(found)
    yield from _gate(found)
    yield from _service(found)


Said = tuple[tuple[str, Any], ...]


def _said(found: Found, ledger: str = "", tag: str = "", file: str = "") -> Said:
    """Return what ledger and registry say, by the names that they use.

    Tags of a version whose tags the ledger recorded are compared with these, all of them, by
    `flows.verify_registered.row_findings`.
    """
    entry = found.told.records.registered.get(found.subject)
    said: list[tuple[str, Any]] = []
    if entry is not None:
        who = f"entry {entry.seq} of the ledger"
        said = [(who, entry.payload.get(ledger)), (who, entry.payload.get("files", {}).get(file))]
    sealed = "tags" in found.recorded
    tags = found.version.tags if not sealed else {}
    return (*said, (f"the registry's tag {tag}", tags.get(tag)))


def _by_run(found: Found, param: str) -> Said:
    return ((f"the run's parameter {param}", found.run.params.get(param) if found.run else None),)


def _by_evidence(found: Found, name: str) -> Said:
    return (("the evidence", found.files.evidence.get("digests", {}).get(name)),)


def _by_release(found: Found, name: str) -> Said:
    """Return what the releases that it served in say of it."""
    task = found.version.task
    return tuple(
        (f"release {one.release.version}", getattr(one.release.tasks[task], name))
        for one in found.admitted.values()
        if one.release is not None and task in one.release.tasks
    )


def _data(found: Found) -> Iterator[Claim]:
    source = found.run.source if found.run else {}
    profile = found.run.profile if found.run else {}
    files, manifest = found.files, found.data.manifest
    yield _file(found, "images", MANIFEST_FILE)
    yield Claim(
        "images",
        "the digest of the images' manifest",
        (
            *_said(found, "manifest", "clr.manifest_digest"),
            ("the run's data set", profile.get("manifest")),
            ("the validation report", files.parsed(VALIDATION_FILE).get("manifest")),
        ),
        found=manifest.digest if manifest else "",
        computed=manifest is not None or MANIFEST_FILE not in files.contents,
    )
    yield Claim(
        "data",
        "the data digest",
        (
            *_said(found, "data", "clr.data_digest"),
            *_by_run(found, "data_digest"),
            ("the run's data set", source.get("dvc_digest")),
            *_by_evidence(found, "data"),
            *_by_release(found, "data_digest"),
        ),
    )
    commit = ("the run's data set", source.get("git_commit"))
    yield Claim("data", "the git commit", _said(found, "commit"), loose=(commit,))
    # other tasks may have been versioned between the two
    pinned = ("the run's data set", source.get("data_dvc"))
    yield _file(found, "data", DVC_FILE, loose=(pinned,))
    yield _file(found, "validation", VALIDATION_FILE, "validation", "clr.validation_digest")


def _file(
    found: Found, link: str, path: str, ledger: str = "", tag: str = "", loose: Said = ()
) -> Claim:
    """Return the claim that a file of the run has the bytes that were recorded."""
    said, digest = _said(found, ledger, tag, path), found.files.digest(path)
    return Claim(link, f"the file {path}", said, loose, digest, computed=True)


def _making(found: Found) -> Iterator[Claim]:
    from clr.registry.package import BACKBONE_FILE

    files, reference = found.files, found.files.parsed(BACKBONE_FILE)
    # begun with one version of code or packages, taken up again with another
    yield Claim(
        "code",
        "the digest of the code",
        _said(found, "code", "clr.code_digest"),
        loose=(*_by_run(found, "code_digest"), *_by_evidence(found, "code")),
    )
    yield Claim(
        "environment",
        "the digest of the environment",
        _said(found, "environment", "clr.environment_digest"),
        loose=(*_by_evidence(found, "environment"), *_by_run(found, "environment_digest")),
        found=files.environment_digest or files.digest(ENVIRONMENT_FILE),
        computed=True,
    )
    yield _file(found, "environment", ENVIRONMENT_FILE)
    yield Claim(
        "backbone",
        "the digest of the backbone",
        (
            *_said(found, "backbone", "clr.backbone_digest"),
            *_by_run(found, "backbone_digest"),
            ("the model's reference", reference.get("digest")),
            ("the adapter's own record", files.spec.get("backbone_digest")),
            *_by_evidence(found, "backbone"),
            *(
                (f"release {one.release.version}", one.release.backbone)
                for one in found.admitted.values()
                if one.release is not None
            ),
        ),
    )
    yield from _weights(reference)
    yield Claim(
        "training",
        "the run that made it",
        (
            *_said(found, "run"),
            ("the registry", found.version.run_id),
            *_by_release(found, "run_id"),
        ),
        found=found.run.id if found.run else "",
        computed=True,
    )
    for name, value in sorted(found.recorded.get("params", {}).items()):
        who = f"entry {found.told.records.registered[found.subject].seq} of the ledger"
        yield Claim("training", f"the parameter {name}", ((who, value), *_by_run(found, name)))


def _weights(reference: dict[str, Any]) -> Iterator[Claim]:
    """Yield the pinned digest of a checkpoint file, where that file is on this machine."""
    from clr.core.files import sha256_file

    path = Path(str(reference.get("name", "")).removeprefix("file:")).expanduser()
    if reference.get("sha256") and path.is_file():
        yield Claim(
            "backbone",
            f"the backbone's file {path.name}",
            (("the model's reference", f"sha256:{reference['sha256']}"),),
            found=sha256_file(path),
            computed=True,
        )


def _adapter(found: Found) -> Iterator[Claim]:
    from clr.registry.package import ADAPTER_FILE, BACKBONE_FILE

    files = found.files
    created = found.told.records.created.get(found.version.source)
    seen = [created] if created else []
    joined = [
        (f"entry {period.entry.seq} of the ledger", one.get("adapter"))
        for period in found.periods
        for one in period.entry.payload.get("joined") or ()
        if (one.get("task"), one.get("version")) == (found.version.task, found.version.version)
    ]
    yield Claim(
        "adapter",
        "the adapter file",
        (
            *_said(found, "adapter", "clr.adapter_digest"),
            *((f"entry {one.seq}, by the server", one.payload.get("actual")) for one in seen),
            *joined,
            ("the model's reference", files.parsed(BACKBONE_FILE).get("adapter_digest")),
            ("the evidence", files.evidence.get("adapter")),
            ("the gate's report", files.parsed(REPORT_FILE).get("adapter")),
            *_by_release(found, "adapter_digest"),
        ),
        found=files.digest(ADAPTER_FILE),
        computed=True,
    )
    yield Claim(
        "adapter",
        "the task of the adapter",
        (
            ("the registry", found.version.task),
            ("the adapter's own record", files.spec.get("task")),
            ("the evidence", files.evidence.get("task")),
        ),
    )


def _gate(found: Found) -> Iterator[Claim]:
    report = found.files.parsed(REPORT_FILE)
    # where the ledger is silent the tag is asked; it names a later report if the gate ran again
    tag = "" if found.recorded.get("gate") else "clr.gate_digest"
    yield _file(found, "gate", REPORT_FILE, "gate", tag)
    yield Claim(
        "gate",
        "the gate's verdict",
        (
            *_said(found, "verdict", "clr.verdict"),
            ("the gate's report", VERDICTS.get(str(report.get("verdict")))),
        ),
    )
    yield Claim(
        "gate",
        "the evidence",
        (
            *_said(found, "evidence", "clr.evidence_digest", EVIDENCE_FILE),
            *_by_release(found, "evidence_digest"),
        ),
        found=found.files.digest(EVIDENCE_FILE),
        computed=True,
    )


def _service(found: Found) -> Iterator[Claim]:
    for period in found.periods:
        admitted = found.admitted.get(period.digest)
        if admitted is None:
            continue
        entry = f"entry {period.entry.seq} of the ledger"
        release = admitted.release
        yield Claim(
            "service",
            f"release {period.release}",
            ((entry, period.digest),),
            found=release.digest if release else "",
            computed=True,
        )
        yield Claim(
            "service",
            f"the gate report that admitted release {period.release}",
            ((entry, period.gate), ("the release", release.gate if release else None)),
            found=admitted.report,
            computed=True,
        )
        if len(period.entry.payload.get("joined") or ()) == 1 and period.joined and admitted.about:
            yield Claim(
                "service",
                f"the adapter that the gate admitted to release {period.release}",
                (
                    (entry, found.recorded.get("adapter") or found.version.adapter_digest),
                    ("the gate report of the release", admitted.about),
                ),
            )
    ordered = found.told.records.moves[-1] if found.told.records.moves else None
    if ordered is not None and ordered.payload.get("release") == found.serving:
        return  # also where an order was carried out and the kill came before that was recorded
    if found.history:
        last = found.history[-1]
        yield Claim(
            "service",
            "what serves",
            (
                (f"entry {last.entry.seq} of the ledger", last.digest),
                ("the registry's alias champion of clr-release", found.serving or "nothing"),
            ),
        )
