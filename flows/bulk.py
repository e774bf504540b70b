"""Onboard several folders by one command: each is a run of its own, and stops no other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from clr.errors import ClrError
from flows import follow, text
from flows.runners import fan_out
from flows.session import Session

LOG = logging.getLogger("clr")
Result = dict[str, Any]


def onboard_all(session: Session, paths: Sequence[Path]) -> Result:
    """Onboard task folders: by the workers of `clr up` where it runs, else by the task runner.

    With threads they are trained one after another, since each takes all cores; Dask and Ray
    take as many at once as they have workers.

    Returns:
        {tasks: [what ``clr onboard --json`` prints of each, in the order of `paths`; where an
        error ended one, the error with its ``path``]}.

    Raises:
        UsageError, ServiceUnavailable: the task runner cannot be used.
    """
    folders = [str(path.absolute()) for path in paths]
    if follow.is_possible(session.settings):
        with ThreadPoolExecutor(len(folders)) as waiting:
            return {"tasks": list(waiting.map(lambda path: _followed(session, path), folders))}
    return {"tasks": fan_out(session, onboard_one, folders, what="onboard", part=1)}


def onboard_one(session: Session, path: str) -> Result:
    """Onboard one folder where a worker is; an error of ours is its result."""
    from flows.asked import check_request
    from flows.onboard import run_onboard

    try:
        check_request(session, Path(path), None)
        return run_onboard(Path(path), None, session)
    except ClrError as error:
        return _ended(path, error)


def told(result: Result) -> str:
    """Describe several onboardings, one after another."""
    return "\n".join(
        f"{one['path']}: {one['message']}" if "error" in one else text.onboarded(one)
        for one in result["tasks"]
    )


def _followed(session: Session, path: str) -> Result:
    try:
        return follow.onboard(session.settings, Path(path), None)
    except ClrError as error:
        return _ended(path, error)


def _ended(path: str, error: ClrError) -> Result:
    LOG.warning("onboard   %s: %s", path, error.message)
    return {"path": path, **error.as_dict()}
