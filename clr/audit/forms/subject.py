"""What the standard forms speak about, and when they may: digests, and an intact chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clr.errors import IntegrityBroken, UsageError


def hexadecimal(digest: str) -> str:
    """Return the hexadecimal part of ``sha256:<hex>`` or of DVC's ``md5:<hex>.dir``."""
    return digest.partition(":")[2].removesuffix(".dir")


def adapter_digest(document: Mapping[str, Any]) -> str:
    """Return the sha256 of the adapter's file in hexadecimal: what every form is about.

    Raises:
        UsageError: the version's registration recorded none.
    """
    digest = document["adapter"]["digest"]
    if not digest:
        raise UsageError(
            f"No digest of its adapter was recorded for {document['subject']}.",
            fix="Export it as text or json: the standard forms speak about bytes.",
        )
    return hexadecimal(digest)


def require_intact(document: Mapping[str, Any]) -> None:
    """See that the audit found nothing broken: a signature under it would launder what is.

    Raises:
        IntegrityBroken: a link of the chain is broken.
    """
    if not document["verdict"]["intact"]:
        raise IntegrityBroken(
            f"{document['verdict']['sentence']} Nothing was signed.",
            fix=document["verdict"]["problems"][0]["fix"],
            subject=document["subject"],
        )
