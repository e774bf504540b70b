"""Anchors: signed heads of the ledger that are kept elsewhere (pure).

Who holds the private key can rewrite the table, or cut its end off, and sign a new head file. An
anchor is a head that he cannot reach: a file on another machine, a tag in a git repository that
others have fetched. The ledger has to hold the anchored entry, with the hash it had then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clr.audit.chain import Problem
from clr.audit.signing import Head, is_signed

FIX = (
    "Trust the anchor: find out who could write to the ledger since then, and restore it from a "
    "backup that holds the anchored entry."
)


@dataclass(frozen=True)
class Anchor:
    """A head that was kept elsewhere.

    Attributes:
        head: as it was then.
        where: in words, e.g. ``git tag clr-ledger/17``.
    """

    head: Head
    where: str


def anchor_problems(
    anchor: Anchor, last: int, found: str, trusted: Mapping[str, Ed25519PublicKey]
) -> Iterator[Problem]:
    """Yield what an anchor says against the ledger.

    Args:
        anchor: the kept head.
        last: ``seq`` of the table's last row, 0 without rows.
        found: hash of the row that is anchored; empty where there is none.
        trusted: public keys by id.
    """
    head, kind, message = anchor.head, "", ""
    known = head.key_id in trusted
    if known and not is_signed(head, trusted):
        kind, message = "anchor-signature", "has not the signature of the key that it names"
    elif head.seq > last:
        kind = "anchor-truncated"
        message = f"holds entry {head.seq}, but the ledger ends with entry {last}"
    elif head.hash != found:
        kind = "anchor-rewritten"
        message = f"has another entry {head.seq} than the ledger: what is there was written anew"
        if not known:
            message += f"; the key that signed it then ({head.key_id}) is no longer trusted here"
    if kind:
        yield Problem(head.seq, kind, f"The anchor {anchor.where} {message}.", FIX)
