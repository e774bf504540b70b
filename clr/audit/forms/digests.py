"""Digests as the document writes them, in the words of the standard forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clr.errors import UsageError


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
