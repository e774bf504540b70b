"""Read a ledger from its first row to its last and name every broken link (pure functions)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clr.audit.anchor import Anchor, anchor_problems
from clr.audit.chain import GENESIS, Problem, digest
from clr.audit.signing import Head, is_signed

Row = Mapping[str, Any]
Keys = Mapping[str, Ed25519PublicKey]

RESTORE = "Compare with a backup; trust nothing from this entry on until it is explained."

# Where else a row may have stood is found by trying: enough for a look, bounded for a flood.
_TRY_AROUND, _TRY_ROWS = 1000, 20


def walk(
    rows: Iterable[Row],
    head: Head | None,
    trusted: Keys,
    *,
    own: str = "",
    anchors: Sequence[Anchor] = (),
) -> list[Problem]:
    """Return what is broken in `rows` (all of them, by rising ``seq``), in order.

    Args:
        rows: stored rows, payloads as their stored text.
        head: the newest signed head kept outside the table, if there is one.
        trusted: public keys by id.
        own: id of the one key that signs here; empty where several machines sign, or it is
            not known.
        anchors: heads kept elsewhere.
    """
    problems: list[Problem] = []
    unknown: set[str] = set()
    hashes: dict[int, str] = dict.fromkeys((one.head.seq for one in anchors), "") | {0: GENESIS}
    signers: list[tuple[int, str]] = []
    last, previous, at_head, broken = 0, GENESIS, GENESIS, 0
    for row in rows:
        found = list(_row_problems(row, last + 1, previous, trusted, unknown, broken < _TRY_ROWS))
        problems += found
        broken += bool(found)
        last = int(row["seq"])
        # the row after a broken one is not blamed for what it follows
        previous = "" if any(one.kind in _BREAKS for one in found) else row["hash"]
        if head is not None and last == head.seq:
            at_head = row["hash"]
        if last in hashes:
            hashes[last] = row["hash"]
        if not signers or signers[-1][1] != row["key_id"]:
            signers.append((last, row["key_id"]))
    problems += head_problems(head, last, at_head, trusted)
    problems += _foreign(own, signers, trusted)
    for one in anchors:
        problems += anchor_problems(one, last, hashes[one.head.seq], trusted)
    return problems


def _foreign(own: str, signers: Sequence[tuple[int, str]], trusted: Keys) -> Iterator[Problem]:
    """Yield keys that have no business in the ledger of one machine.

    A machine that lost its key makes a new one, which from then on signs everything.

    Args:
        own: id of the machine's key; empty: nothing is said.
        signers: (first entry, key) wherever the key changes.
        trusted: public keys by id.
    """
    if not own:
        return
    begun = [number for number, (_, key) in enumerate(signers) if key == own]
    late = signers[begun[0] + 1 :] if begun else signers[-1:]
    for seq, key in late:
        if key != own:
            message = f"Entry {seq} is signed with {key}, and not with this installation's own key."
            yield Problem(seq, "foreign-key", message, _FOREIGN)
    for key in sorted(trusted.keys() - {own, *(key for _, key in signers)}):
        message = f"A public key lies beside the ledger's own and has signed nothing: {key}."
        yield Problem(0, "foreign-key", message, _FOREIGN)


_FOREIGN = (
    "Find out who put it there, and remove its .pub file: who has its private key could rewrite "
    "the ledger."
)


_BREAKS = {"edited", "reordered", "relinked", "signature"}


def _row_problems(
    row: Row, expected: int, previous: str, trusted: Keys, unknown: set[str], search: bool
) -> Iterator[Problem]:
    seq = int(row["seq"])
    if seq < expected:
        yield Problem(seq, "relinked", f"Entry {seq} has a number that no entry has.", RESTORE)
        return
    if seq > expected:
        gone = (
            f"Entry {expected} is"
            if seq == expected + 1
            else f"Entries {expected} to {seq - 1} are"
        )
        yield Problem(expected, "deleted", f"{gone} missing from the ledger.", RESTORE)
        previous = ""
    if _digest(row) != row["hash"]:
        if search and _stood_elsewhere(row):
            yield Problem(seq, "reordered", f"Entry {seq} stood elsewhere before.", RESTORE)
        else:
            yield Problem(seq, "edited", f"Entry {seq} was changed after it was written.", RESTORE)
    elif previous and row["previous"] != previous:
        message = f"Entry {seq} does not follow the entry before it."
        yield Problem(seq, "relinked", message, RESTORE)
    else:
        yield from _signature_problems(row, trusted, unknown)


def _digest(row: Row) -> str:
    try:
        return digest(row)
    except (ValueError, TypeError):
        return ""


def _stood_elsewhere(row: Row) -> bool:
    seq = int(row["seq"])
    places = range(max(1, seq - _TRY_AROUND), seq + _TRY_AROUND + 1)
    return any(_digest({**row, "seq": place}) == row["hash"] for place in places)


def _signature_problems(row: Row, trusted: Keys, unknown: set[str]) -> Iterator[Problem]:
    seq = int(row["seq"])
    head = Head(seq, row["hash"], row["key_id"], row["signature"])
    if head.key_id in trusted:
        if not is_signed(head, trusted):
            message = f"Entry {seq} was written or hashed anew by somebody without the key."
            yield Problem(seq, "signature", message, RESTORE)
    elif head.key_id not in unknown:
        unknown.add(head.key_id)
        yield Problem(
            seq,
            "unknown-key",
            f"Entry {seq} is the first signed with {head.key_id}, a key not trusted here.",
            "If it is the key of another machine of yours, put its .pub file beside the others.",
        )


def head_problems(
    head: Head | None, last: int, at_head: str, trusted: Keys | None = None
) -> Iterator[Problem]:
    """Yield what the kept head says against the table.

    Args:
        head: the kept head.
        last: ``seq`` of the table's last row, 0 without rows.
        at_head: stored hash of row ``head.seq`` (`GENESIS` for 0).
        trusted: public keys by id; None where the signature does not matter.
    """
    if head is None:
        if last:
            yield Problem(
                0,
                "head-missing",
                "The file of the ledger's signed head is missing: rows cut off its end would not "
                "be noticed.",
                "Restore head.json from a backup of this ledger.",
            )
        return
    if trusted is not None and not is_signed(head, trusted):
        yield Problem(
            head.seq,
            "head-signature",
            "The ledger's head file is not signed by a key trusted here.",
            "Restore head.json, and the keys, from a backup.",
        )
    if head.seq > last:
        gone = (
            f"Entry {head.seq} is"
            if head.seq == last + 1
            else f"Entries {last + 1} to {head.seq} are"
        )
        yield Problem(last + 1, "truncated", f"{gone} missing from the ledger's end.", RESTORE)
    elif at_head != head.hash:
        message = f"Entry {head.seq} is not the one whose head was signed on this machine."
        yield Problem(head.seq, "rewritten", message, RESTORE)
