"""Labels that come later: checked against what is served, and written beside their answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from clr.errors import UsageError
from clr.serving import journal
from clr.serving.journal import Journal, Told
from clr.serving.values import Feedback, UnknownRequest

if TYPE_CHECKING:
    from clr.serving.snapshot import Loaded


async def label_answer(
    written: Journal,
    state: Path,
    served: Mapping[str, Loaded],
    request_id: str,
    label: str,
    client: str,
) -> Feedback:
    """Write down what an image really was.

    Args:
        written: the journal.
        state: ``CLR_HOME``.
        served: the tasks that are served.
        request_id: of the answer.
        label: a class of the task that answered, or of another one if that was wrong.
        client: who says so.

    Raises:
        UnknownRequest: there is no answer with this id.
        UsageError: no task that is served has such a label.
    """
    given = await asyncio.to_thread(journal.answer, state, request_id)
    if given is None:
        raise UnknownRequest(
            f"There is no answer with the request id {request_id[:80]!r}.",
            fix="Give the request_id of an answer, while the journal still has it.",
        )
    _check(served, given.task, label)
    earlier = await asyncio.to_thread(journal.labelled, state, request_id)
    told = Told(request_id, time.time(), client, label)
    await asyncio.wrap_future(written.write([told]))
    return Feedback(request_id, given.task, given.label, label, first=not earlier)


def _check(served: Mapping[str, Loaded], task: str, label: str) -> None:
    known = {one for loaded in served.values() for one in loaded.spec.labels}
    if label not in known:
        own = served[task].spec.labels if task in served else ()
        raise UsageError(
            f"No task that is served has the label {label[:80]!r}.",
            fix=f"Labels of {task}: {', '.join(own[:20])}.",
        )
