"""What the last replay of all tasks said: for those who only want to know, nothing heavy."""

from __future__ import annotations

from flows.session import Session

REPLAYED = "retention.replayed"
"""Action of the ledger's entries, see flows/replay_retention.py."""


def warnings(session: Session) -> list[str]:
    """Return a warning if the last replay found a task that forgot; none otherwise.

    Raises:
        ServiceUnavailable, IntegrityBroken: the ledger cannot be read.
    """
    entries = list(session.ledger.entries(action=REPLAYED))
    if not entries or entries[-1].payload.get("verdict") == "pass":
        return []
    last = entries[-1]
    return [
        f"RETENTION IS NOT PROVED, says the replay of {last.time}: {last.payload.get('sentence')} "
        "Once put right, `clr replay` takes this back."
    ]
