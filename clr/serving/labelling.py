"""Labels that come later: checked against what is served, and written beside their answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from clr.errors import UsageError
from clr.serving import journal
from clr.serving.journal import Entry, Journal, Told
from clr.serving.values import Feedback, NotReady, UnknownRequest

if TYPE_CHECKING:
    from clr.serving.snapshot import Loaded


async def label_answer(
    written: Journal,
    state: Path,
    answering: Iterable[Loaded],
    request_id: str,
    label: str,
    client: str,
) -> Feedback:
    """Write down what an image really was.

    Args:
        written: the journal.
        state: ``CLR_HOME``.
        answering: the adapters that answer now, challengers included.
        request_id: of the answer.
        label: a class of the task that answered, or of another one if that was wrong.
        client: who says so.

    Raises:
        UnknownRequest: there is no answer with this id.
        UsageError: none of them has such a label, and the one that gave the answer is among them.
        NotReady: the journal cannot be written.
    """
    given = await asyncio.to_thread(journal.answer, state, request_id)
    if given is None:
        raise UnknownRequest(
            f"There is no answer with the request id {request_id[:80]!r}.",
            fix="Give the request_id of an answer, while the journal still has it.",
        )
    _check(answering, given, label)
    earlier = await asyncio.to_thread(journal.labelled, state, request_id)
    told = Told(request_id, time.time(), client, label)
    if not await asyncio.wrap_future(written.write([told])):
        raise NotReady("The label could not be written down.", fix="Send it again later.")
    return Feedback(request_id, given.task, given.label, label, first=not earlier)


def _check(answering: Iterable[Loaded], given: Entry, label: str) -> None:
    labels = {one.ref.adapter_digest: one.spec.labels for one in answering}
    # the classes of an adapter that is gone are not known here; what it answered is labelled still
    if given.adapter in labels and not any(label in some for some in labels.values()):
        raise UsageError(
            f"No task that is served has the label {label[:80]!r}.",
            fix=f"Labels of {given.task}: {', '.join(labels[given.adapter][:20])}.",
        )
