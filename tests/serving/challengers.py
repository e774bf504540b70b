"""Challengers of the served workspace's tasks, registered as an onboarding leaves them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.recheck import REPORT_FILE
from flows.session import EVIDENCE_FILE, Session
from tests import synthetic
from tests.serving.plants import Served


def challenge(
    served: Served, task: str = "red", *, flipped: bool = True, passed: bool = True
) -> int:
    """Register another version of a task; return its number.

    Args:
        served: a workspace of one's own.
        task: whose champion it differs from.
        flipped: it says the other one of both labels, always; else it answers alike.
        passed: its gate.
    """
    from clr.core.adapter import Adapter, adapter_bytes, load_adapter
    from clr.core.files import sha256_bytes

    session = Session(served.settings())
    champion = served.second.tasks[task]
    elder = load_adapter(served.adapter(task), session.backbone, champion.adapter_digest)
    tensors: dict[str, Any] = dict(elder.tensors)
    factor = -1.0 if flipped else 1.0 + 2**-10
    for name in ("head.weight", "head.bias"):
        tensors[name] = tensors[name] * factor
    data = adapter_bytes(Adapter(elder.spec, tensors))
    path = served.state / "challenger.safetensors"
    path.write_bytes(data)
    digest = sha256_bytes(data)
    files = _files(session, served, task, digest)
    tags = {
        "clr.evidence_digest": sha256_bytes(files[EVIDENCE_FILE]),
        "clr.gate_digest": sha256_bytes(files[REPORT_FILE]),
        "clr.gate_release": served.second.digest,
        "clr.verdict": "passed" if passed else "refused",
    }
    run, version = synthetic.register_version(
        session, task, path, digest, champion.data_digest, tags
    )
    place = session.registry.client.get_run(run.id).info.artifact_uri.removeprefix("file://")
    for name, content in files.items():
        synthetic.write_quickly(Path(place, name), content)
    return int(version.version)


def _files(session: Session, served: Served, task: str, digest: str) -> dict[str, bytes]:
    """Evidence as the champion's, and a gate report that says pass of all it has to."""
    from clr.core.files import canonical_json

    evidence = session.evidence(served.second.tasks[task])
    about = {**evidence.about, "adapter": digest}
    own = ("improvement", "own-champion", "parameters", "bytes", "latency", "provenance")
    checks = [(name, task) for name in own]
    checks += [(name, other) for name in ("retention", "routing") for other in served.second.tasks]
    report = {
        "schema": "clr.gate/1", "verdict": "pass", "newcomer": task, "adapter": digest,
        "release": served.second.digest, "failed": [], "inconclusive": [], "matrix": None,
        "limits": {},
        "checks": [{"name": name, "task": of, "verdict": "pass"} for name, of in checks],
    }  # fmt: skip
    return {
        EVIDENCE_FILE: replace(evidence, about=about).to_bytes(),
        REPORT_FILE: canonical_json(report),
    }
