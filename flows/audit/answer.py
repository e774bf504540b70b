"""The answer to `clr audit TASK[@VERSION]`: gathered, judged, recorded, one document."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from clr.audit.document import Document
from flows.audit.assemble import sections
from flows.audit.chosen import Asked
from flows.audit.exported import asking, record_export
from flows.audit.gather import gather
from flows.audit.verdict import judge, sentence

if TYPE_CHECKING:
    from flows.session import Session

PAUSE_SECONDS = 1.0


def answer(session: Session, asked: Asked, form: str) -> Document:
    """Return the document about one version; the ledger then tells that it was given.

    Args:
        session: the workspace.
        asked: which version.
        form: in which it will be shown.

    Raises:
        UsageError: no such task or version, or none of it served then.
        ServiceUnavailable: registry or ledger cannot be reached.
        IntegrityBroken: the ledger cannot be read at all.
    """
    document = _document(session, asked)
    if document["verdict"]["problems"]:
        # who reviews or promotes meanwhile writes one after the other: a difference counts if
        # it is still there a moment later
        time.sleep(PAUSE_SECONDS)
        document = _document(session, asked)
    version = f"@{asked.version}" if asked.version else ""
    question = f"{asked.task}{version}" + (f" --at {asked.at}" if asked.at else "")
    entry, trouble = record_export(session, document["subject"], question, form, document)
    document["asked"]["entry"] = entry
    if trouble:
        document["verdict"]["notes"].append({"subject": "ledger", "message": trouble})
    return document


def _document(session: Session, asked: Asked) -> Document:
    from flows.standing import policy_of

    found = gather(session, asked)
    findings, notes = judge(found, policy_of(session))
    told = sections(found)
    head = {name: told[name] for name in ("schema", "subject", "task", "version", "title")}
    return {
        **head,
        "asked": {"at": asked.at or None, "chosen": found.chosen, **asking(session)},
        "verdict": {
            "intact": not findings,
            "sentence": sentence(found, findings),
            "problems": [one.as_dict() for one in findings],
            "notes": [{"subject": one, "message": message} for one, message in notes],
        },
        **{name: value for name, value in told.items() if name not in head},
    }
