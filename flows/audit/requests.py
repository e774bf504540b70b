"""The question `clr audit --request ID`: what answered one image, and whether the ledger agrees.

The journal of the prediction server (clr/serving/journal.py) is of this machine and no part of
the ledger: what it says of release and version is compared with what the ledger says served then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from clr.audit.chain import format_time
from clr.errors import UsageError
from clr.serving import journal
from flows.audit import history
from flows.audit.questions import Answered, Row, served

if TYPE_CHECKING:
    from clr.serving.journal import Entry
    from flows.audit.gather import Told
    from flows.audit.history import Named
    from flows.session import Session


def find(session: Session, request_id: str) -> Entry:
    """Return the answer with this request id.

    Raises:
        UsageError: the journal of this machine has none.
    """
    found = journal.answer(session.settings.state, request_id)
    if found is None:
        raise UsageError(
            f"The journal has no answer with the request id {request_id[:80]!r}.",
            fix=f"Ask on the machine of the prediction server; answers stay there for "
            f"{session.settings.keep_answers_days} days (CLR_KEEP_ANSWERS_DAYS).",
        )
    return found


def requested(
    session: Session, told: Told, request_id: str, named: Callable[[str], Named]
) -> Answered:
    """Return what answered an image: release, version, task, how it was chosen, and when.

    Args:
        session: the workspace.
        told: what the ledger tells.
        request_id: of the image.
        named: reader of a task's version in releases that the ledger does not tell of.

    Raises:
        UsageError: see `find`.
    """
    entry = find(session, request_id)
    labels = journal.labelled(session.settings.state, request_id)
    row: Row = {
        "request": entry.request_id,
        "time": _moment(entry.time),
        "release": entry.release,
        "release_digest": entry.release_digest,
        "task": entry.task,
        "how": entry.how,
        "label": entry.label,
        "probability": round(entry.probability, 4),
        "arm": entry.arm,
        "client": entry.client,
        "unit": entry.unit,
        "doubtful": entry.doubtful,
        "unknown": entry.unknown,
        "feedback": labels[-1].label if labels else "",
        **served(told, f"clr-{entry.task}/{entry.version}", named),
    }
    sentence = (
        f"{entry.task} version {entry.version} of release {entry.release} answered "
        f"{entry.label!r}, as {entry.arm}; the task was {_HOW[entry.how]}."
    )
    return Answered([row], sentence, list(_differences(told, entry, named)))


_HOW = {
    "named": "named by the caller",
    "only": "the only one",
    "routed": "found by the router",
}


def _differences(told: Told, entry: Entry, named: Callable[[str], Named]) -> Iterator[str]:
    """Yield where the journal and the ledger tell different things."""
    registered = told.records.registered.get(f"clr-{entry.task}/{entry.version}")
    if registered is None:
        yield "the ledger does not know this version"
    elif registered.payload.get("adapter") != entry.adapter:
        yield f"the ledger knows this version with the adapter {registered.payload.get('adapter')}"
    times = history.periods(told.records.moves, entry.task, named(entry.task))
    # a request that was in work while a release changed may have been answered by either
    begin, end = _moment(entry.time), _moment(entry.time + entry.seconds)
    during = [one for moment in (begin, end) for one in history.during(times, moment)]
    if all(one.digest != entry.release_digest for one in during):
        yield f"the ledger does not say that release {entry.release} was in force then"
    elif entry.arm == "champion" and all(one.version != entry.version for one in during):
        yield f"the ledger does not say that this version answered for {entry.task} then"


def _moment(seconds: float) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))
