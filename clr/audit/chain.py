"""One ledger entry, its hash, and how entries follow one another (pure functions).

The hash of an entry is ``sha256`` over the canonical JSON (RFC 8785) of its
fields, the hash of the entry before it among them: whoever changes, removes or
moves an entry has to recompute every later hash, and cannot sign them again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import rfc8785

from clr.errors import IntegrityBroken, UsageError

SCHEMA, SCHEMA_PLAIN = "clr.ledger/2", "clr.ledger/1"
"""Of rows that name people by refs (clr/audit/personal.py); of older ones, which have names."""

REF = re.compile(r"(person|words):[0-9a-f]{64}")
"""What stands in a row for a name or for somebody's words."""

ACTOR = "{actor}"
"""In an idempotency key: who acts."""

GENESIS = "sha256:" + "0" * 64
"""What the first entry names as the hash before it."""

MAX_TEXT = 4096
MAX_PAYLOAD = 1 << 20

_HASHED = (
    "seq",
    "time",
    "actor",
    "authentication",
    "action",
    "subject",
    "payload",
    "key",
    "previous",
    "key_id",
)


@dataclass(frozen=True)
class Entry:
    """One act, as recorded.

    Attributes:
        seq: position in the ledger, from 1, without gaps.
        time: UTC, ISO 8601 with microseconds and ``Z``; sorts as text.
        actor: who did it.
        authentication: how we know: ``mlflow-basic-auth``, ``local-os-user``, …
        action: what was done, e.g. ``review.approved``.
        subject: to what, e.g. ``clr-animals/3``.
        payload: facts about it; JSON values only.
        key: the caller's idempotency key, or None.
        previous: hash of the entry before this one (`GENESIS` for the first).
        hash: ``sha256:<hex>`` over the canonical JSON of all the above, as they are stored, of
            `key_id` and of the schema (see `digest`).
        key_id: digest of the public key that signed.
        signature: base64 Ed25519 signature of the ledger's head as of this entry.
        stored: actor, subject, payload (text) and key as the hash covers them, which is with
            refs in place of names and words; None for older entries, which have no refs.
    """

    seq: int
    time: str
    actor: str
    authentication: str
    action: str
    subject: str
    payload: Mapping[str, Any]
    key: str | None
    previous: str
    hash: str
    key_id: str
    signature: str
    stored: Mapping[str, str | None] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as one JSON-serialisable object."""
        return {**asdict(self), "payload": dict(self.payload)}


@dataclass(frozen=True)
class Problem:
    """One broken link.

    Attributes:
        seq: the entry at which the ledger breaks; 0 where no entry is to blame.
        kind: ``edited``, ``deleted``, ``reordered``, ``relinked``, ``signature``,
            ``unknown-key``, ``truncated``, ``rewritten``, ``head-missing``,
            ``head-signature``, ``unprotected``, ``unreadable``, or of personal data
            ``renamed``, ``nameless`` or ``unerased``.
        message: what is wrong, in one sentence.
        fix: what to do about it.
    """

    seq: int
    kind: str
    message: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the problem as one JSON-serialisable object."""
        return asdict(self)


def utc_now() -> str:
    """Return the time now as the ledger writes it."""
    return format_time(datetime.now(UTC))


def format_time(moment: datetime | str) -> str:
    """Return `moment` in the ledger's own form, so that text order is time order.

    Raises:
        UsageError: not an ISO 8601 time, one without a time zone, or one whose year in UTC is
            not from 1 to 9999.
    """
    try:
        parsed = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        utc = parsed.astimezone(UTC) if parsed.tzinfo is not None else None
    except (ValueError, OverflowError):
        utc = None
    if utc is None:
        raise UsageError(
            f"{moment!r} is not a time with a time zone.",
            fix="Write it as 2026-01-31T12:00:00Z.",
        )
    # not strftime, which writes the year 999 with three digits on some systems
    return utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def canonical(value: Any, what: str) -> str:
    """Return the canonical JSON (RFC 8785) of `value`.

    Raises:
        UsageError: `value` is not JSON, or has a number that JSON cannot carry exactly.
    """
    try:
        return rfc8785.dumps(value).decode("utf-8")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{what} cannot be written to the ledger: {error}.",
            fix="Use str, bool, None, finite floats, integers below 2^53, lists and dicts.",
        ) from error


def check_text(name: str, value: str) -> None:
    """Refuse text that not every database keeps as it is.

    Raises:
        UsageError: `value` is empty, too long, or has control characters or lone surrogates.
    """
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"A ledger entry needs a non-empty {name}.", fix=f"Give the {name}.")
    if len(value) > MAX_TEXT or any(ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise UsageError(
            f"The {name} {value[:80]!r} of a ledger entry is longer than {MAX_TEXT} characters "
            "or has control characters.",
            fix="Put long or raw text into the payload.",
        )


def payload_text(payload: Mapping[str, Any] | None) -> str:
    """Return the canonical text of an entry's payload.

    Raises:
        UsageError: not a JSON object, or more than `MAX_PAYLOAD` bytes of it.
    """
    text = canonical(dict(payload or {}), "The payload")
    if len(text.encode()) > MAX_PAYLOAD:
        raise UsageError(
            f"The payload has {len(text.encode())} bytes; the ledger takes {MAX_PAYLOAD}.",
            fix="Store the bytes as an artifact and record their digest.",
        )
    return text


def is_ref(text: Any) -> bool:
    """Say whether a field holds a ref and nothing else."""
    return isinstance(text, str) and REF.fullmatch(text) is not None


def digest(row: Mapping[str, Any]) -> str:
    """Return the hash that a row with these fields must have (all as stored)."""
    schema = SCHEMA if is_ref(row["actor"]) else SCHEMA_PLAIN
    fields = {name: row[name] for name in _HASHED} | {"schema": schema}
    return "sha256:" + hashlib.sha256(rfc8785.dumps(fields)).hexdigest()


def entry(row: Mapping[str, Any]) -> Entry:
    """Build the entry of a stored row.

    Raises:
        IntegrityBroken: the stored payload is no longer a JSON object.
    """
    try:
        payload = json.loads(row["payload"])
        if not isinstance(payload, dict):
            raise ValueError("not an object")
    except (ValueError, TypeError) as error:
        raise IntegrityBroken(
            f"Entry {row['seq']} of the ledger has a payload that is not JSON: {error}.",
            fix="Run `clr verify`; somebody changed the ledger from outside.",
            seq=row["seq"],
        ) from error
    return Entry(**{**row, "payload": payload})
