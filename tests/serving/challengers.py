"""Challengers of the served workspace's tasks, registered as an onboarding leaves them."""

from __future__ import annotations

from typing import Any

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
    from clr.registry.package import BackboneReference
    from clr.registry.runs import find_or_start_run, finish
    from clr.registry.versions import register_adapter
    from flows.session import Session

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
    key = sha256_bytes(data)
    run = find_or_start_run(session.registry, task, key)
    finish(session.registry, run)
    backbone = session.backbone
    version = register_adapter(
        session.registry,
        run,
        path,
        key=key,
        backbone=BackboneReference(
            backbone.name, backbone.digest, architecture=backbone.architecture
        ),
        data_digest=champion.data_digest,
        card="",
        tags={
            "clr.evidence_digest": champion.evidence_digest,
            "clr.verdict": "passed" if passed else "refused",
        },
    )
    return version.version
