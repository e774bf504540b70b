"""Challengers of the served workspace's tasks, registered as an onboarding leaves them."""

from __future__ import annotations

from typing import Any

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
    tags = {
        "clr.evidence_digest": champion.evidence_digest,
        "clr.verdict": "passed" if passed else "refused",
    }
    digest = sha256_bytes(data)
    _, version = synthetic.register_version(session, task, path, digest, champion.data_digest, tags)
    return int(version.version)
