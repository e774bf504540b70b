"""API keys of the prediction server: made, listed and revoked on its machine, each act recorded.

A key is recorded before it is in the file, and revoked in the file before that is recorded: so
no key works that the ledger does not know, and a crash in between delays no revocation. The
same command again completes the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from clr.registry.acts import LOCAL
from clr.serving.keys import (
    Key,
    add_key,
    keys_path,
    make_key,
    read_keys,
    refuse_taken,
    revoke_key,
)
from flows.provenance import local_user
from flows.session import Session

Result = dict[str, Any]
MADE, REVOKED = "key.made", "key.revoked"
"""The acts, as the ledger names them; neither the key nor its hash is in them."""


def add(
    session: Session, name: str, scopes: Sequence[str], tasks: Sequence[str], expires: str
) -> Result:
    """Make a key; what is returned has it, and nothing else ever will.

    Args:
        session: of the workspace.
        name: whose key it is.
        scopes: what it may do.
        tasks: the only ones it is for; empty: all.
        expires: see `clr.serving.keys.expiry`.

    Raises:
        UsageError: a name, scope or time is not one, the name is taken, or the ledger is kept
            on another machine.
        ServiceUnavailable: file or ledger cannot be written.
    """
    path, now = keys_path(session.settings.state), _now()
    key, written = make_key(name, scopes, tasks, expires, now)
    refuse_taken(read_keys(path), name, now)
    _record(session, MADE, key)
    add_key(path, key, now)
    return {**_about(key, now), "key": written}


def revoke(session: Session, name: str) -> Result:
    """Make a key unusable, at once and for good.

    Args:
        session: of the workspace.
        name: of the key, or its id.

    Raises:
        UsageError: there is none.
        ServiceUnavailable: file or ledger cannot be written.
    """
    now = _now()
    key = revoke_key(keys_path(session.settings.state), name, now)
    _record(session, REVOKED, key)
    return _about(key, now)


def listed(session: Session) -> list[Result]:
    """Return all keys, without their secrets: what ``clr keys list --json`` prints."""
    now = _now()
    return [_about(one, now) for one in read_keys(keys_path(session.settings.state))]


def _now() -> datetime:
    return datetime.now(UTC)


def _about(key: Key, now: datetime) -> Result:
    expired = "expired" if key.has_expired(now) else "usable"
    return {
        "name": key.name,
        "id": key.id,
        "state": "revoked" if key.revoked else expired,
        "scopes": list(key.scopes),
        "tasks": list(key.tasks),
        "made": key.made,
        "expires": key.expires,
        "revoked": key.revoked,
    }


def _record(session: Session, action: str, key: Key) -> None:
    session.ledger.append(
        action,
        key.name,
        {
            "id": key.id,
            "scopes": list(key.scopes),
            "tasks": list(key.tasks),
            "expires": key.expires,
        },
        actor=local_user(),
        authentication=LOCAL,
        key=f"{action}:{key.id}",
    )
