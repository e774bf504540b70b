"""What the journal forgets, a little at a time, so that no answer waits long for it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator

_ROWS = 200
"""Answers that go in one transaction; more of them where they are of one moment."""

_STATEMENTS = (
    "DELETE FROM answers WHERE time > :after AND time <= :upto",
    """
    DELETE FROM tried WHERE time > :after AND time <= :upto AND NOT (
        EXISTS (SELECT 1 FROM feedback WHERE feedback.request_id = tried.request_id) AND
        EXISTS (SELECT 1 FROM tried newer WHERE newer.trial = tried.trial AND newer.time >= :aged)
    )
    """,
    """
    DELETE FROM feedback WHERE time > :after AND time <= :upto
    AND NOT EXISTS (SELECT 1 FROM tried WHERE tried.request_id = feedback.request_id)
    """,
)
"""What is too old goes; what counts in a trial goes with the trial's last item."""
_OLDEST = "SELECT time FROM answers ORDER BY time LIMIT 1 OFFSET ?"
_LAST = """
SELECT max(time) FROM
    (SELECT time FROM answers WHERE time > :after AND time < :old ORDER BY time LIMIT :rows)
"""
_BEFORE = """
SELECT max(time) FROM (
    SELECT max(time) time FROM answers WHERE time < :old
    UNION ALL SELECT max(time) FROM tried WHERE time < :old
    UNION ALL SELECT max(time) FROM feedback WHERE time < :old
)
"""


def sweep(database: sqlite3.Connection, keep_days: float, keep_rows: int) -> Iterator[bool]:
    """Delete what is too old, and answers beyond the limit, the oldest first.

    What counts in a trial stays while its items come: an inference that forgot its first
    units would begin anew, and be wrong more often than it says.

    Args:
        database: the journal.
        keep_days: older rows are deleted.
        keep_rows: of more answers than that, the oldest are deleted.

    Yields:
        True after each transaction.

    Raises:
        sqlite3.Error: the file is damaged, locked or full; what was deleted before stays so.
    """
    aged = old = time.time() - keep_days * 86_400
    ((count,),) = database.execute("SELECT count(*) FROM answers")
    if count > keep_rows:
        ((found,),) = database.execute(_OLDEST, (count - keep_rows,))
        old = max(old, found)
    after = float("-inf")
    while True:
        span = {"after": after, "old": old, "rows": _ROWS}
        ((upto,),) = database.execute(_LAST, span)
        if upto is None:  # no answer, but what came after the last of them
            ((upto,),) = database.execute(_BEFORE, span)
        if upto is None or upto <= after:
            return
        with database:
            for statement in _STATEMENTS:
                database.execute(statement, {"after": after, "upto": upto, "aged": aged})
        after = upto
        yield True
