"""Many real versions in little time: each a sibling of an adapter that was trained once.

A sibling's head gives every class the same little more, so it answers alike with other bytes.
All the rest is as an onboarding leaves it: evidence measured on the new bytes, the gate's own
report against the release that serves, run, files, version, alias, ledger entry.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any


def register_sibling(session: Any, task: str, number: int) -> Any:
    """Register sibling `number` of the champion of `task` as another version of its model.

    Args:
        session: of a workspace; signed in as a trainer where a server keeps the registry.
        task: task with a champion.
        number: from 1; another one for each sibling.
    """
    from clr.core.adapter import Adapter, adapter_bytes
    from clr.core.evidence import canary_logits
    from clr.core.files import sha256_bytes
    from clr.registry.releases import current_release
    from flows.judge import judge

    release = current_release(session.registry)
    champion = release.tasks[task]
    elder = session.champion_network(champion).adapter(task).detached()
    bias = elder.tensors["head.bias"] + number / 64
    data = adapter_bytes(Adapter(elder.spec, {**elder.tensors, "head.bias": bias}))
    digest = sha256_bytes(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "adapter.safetensors")
        path.write_bytes(data)
        _attach(session, path, digest)
        old = session.evidence(champion)
        digests = {**old.about["digests"], "adapter": digest}
        evidence = replace(
            old,
            about={**old.about, "adapter": digest, "digests": digests},
            canary=canary_logits(session.network, digest),
        )
        judged = judge(session, evidence, release)
        session.network.detach(digest)
        assert judged.report["verdict"] == "pass", judged.report["sentence"]
        return _register(session, champion, path, evidence.to_bytes(), judged)


def _attach(session: Any, path: Path, digest: str) -> None:
    from clr.core.adapter import load_adapter

    session.network.attach(load_adapter(path, session.backbone, digest), digest)


def _register(session: Any, champion: Any, path: Path, evidence: bytes, judged: Any) -> Any:
    from clr.core.files import sha256_bytes, sha256_file
    from clr.registry.package import BackboneReference
    from clr.registry.runs import find_or_start_run, finish, log_bytes
    from clr.registry.versions import register_adapter, set_candidate
    from flows import provenance
    from flows.recheck import REPORT_FILE
    from flows.session import EVIDENCE_FILE

    backbone, registry = session.backbone, session.registry
    key = sha256_file(path)
    run = find_or_start_run(registry, champion.task, key, name=f"sibling of {champion.task}")
    log_bytes(registry, run, {EVIDENCE_FILE: evidence, REPORT_FILE: judged.data})
    reference = BackboneReference(
        backbone.name, backbone.digest, architecture=backbone.architecture,
        sha256=backbone.sha256, pretrained=backbone.pretrained, source=backbone.source,
    )  # fmt: skip
    version = register_adapter(
        registry, run, path, key=key, backbone=reference, data_digest=champion.data_digest,
        card="# A sibling",
        tags={
            "clr.verdict": "passed",
            "clr.gate_digest": judged.digest,
            "clr.gate_release": judged.release,
            "clr.router_digest": judged.router,
            "clr.evidence_digest": sha256_bytes(evidence),
            "clr.code_digest": provenance.code_digest(),
        },
    )  # fmt: skip
    set_candidate(registry, version)
    facts = {
        "verdict": "passed",
        "adapter": version.adapter_digest,
        "data": version.data_digest,
        "evidence": sha256_bytes(evidence),
        "gate": judged.digest,
        "release": judged.release,
        "run": run.id,
    }
    session.ledger.append(
        "adapter.registered", f"clr-{champion.task}/{version.version}", facts,
        actor=provenance.local_user(), authentication="local-os-user", key=f"registered:{key}",
    )  # fmt: skip
    finish(registry, run)
    return version
