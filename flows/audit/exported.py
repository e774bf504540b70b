"""Every export of an audit is an act of its own: who asked what, and what the answer was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clr.audit.chain import canonical, utc_now
from clr.core.files import sha256_bytes
from clr.errors import ClrError
from flows import provenance

if TYPE_CHECKING:
    from flows.session import Session

EXPORTED = "audit.exported"


def asking(session: Session) -> dict[str, Any]:
    """Return who asks and when, for an answer; ``entry`` is null until it is recorded."""
    actor, authentication = provenance.identity(session.registry)
    return {"time": utc_now(), "by": actor, "authentication": authentication, "entry": None}


def record_export(
    session: Session, subject: str, question: str, form: str, document: dict[str, Any]
) -> tuple[int | None, str]:
    """Write into the ledger that an answer was given.

    Args:
        session: the workspace.
        subject: what was asked about: ``clr-animals/3``, ``period``, ``image sha256:…``.
        question: the command's arguments, as a person would repeat them.
        form: of the answer: ``text``, ``html``, ``json``, …
        document: the answer, its ``asked.entry`` null; the entry names the sha256 of its
            canonical JSON (RFC 8785).

    Returns:
        The entry's number, and why there is none, for a note: a ledger that is broken or may
        only be read takes no entry, and the auditor gets the answer all the same.
    """
    data = canonical(document, "The document").encode()
    payload = {
        "format": form,
        "question": question,
        "digest": sha256_bytes(data),
        "bytes": len(data),
    }
    try:
        entry = session.record(EXPORTED, subject, payload)
    except ClrError as error:
        return None, f"this export could not be recorded in the ledger: {error.message}"
    return entry.seq, ""
