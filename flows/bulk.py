"""Onboard several folders by one command: each is a run of its own, and stops no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from clr.errors import ClrError
from clr.settings import Settings
from flows import follow, text
from flows.runners import fan_out
from flows.session import Session

LOG = logging.getLogger("clr")
Result = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


def onboard_all(session: Session, paths: Sequence[Path]) -> Result:
    """Onboard task folders: by the workers of `clr up` where it runs, else by the task runner.

    With threads they are trained one after another, since each takes all cores; Dask and Ray
    take as many at once as they have workers.

    Returns:
        {tasks: [what ``clr onboard --json`` prints of each, in the order of `paths`; where an
        error ended one, the error with its ``path``]}.

    Raises:
        UsageError, ServiceUnavailable: the task runner cannot be used.
        Interrupted: Ctrl-C while workers are followed; the runs go on.
    """
    folders = [str(path.absolute()) for path in paths]
    if follow.is_possible(session.settings):
        with follow.until_interrupted():
            return {"tasks": _followed(session.settings, folders)}
    return {"tasks": fan_out(session, onboard_one, folders, what="onboard", part=1)}


def onboard_one(session: Session, path: str) -> Result:
    """Onboard one folder where a worker is; an error of ours is its result."""
    return _or_error(path, _onboarded, session, Path(path))


def told(result: Result) -> str:
    """Describe several onboardings, one after another."""
    return "\n".join(
        f"{one['path']}: {one['message']}" if "error" in one else text.onboarded(one)
        for one in result["tasks"]
    )


def _onboarded(session: Session, path: Path) -> Result:
    from flows.asked import check_request
    from flows.onboard import run_onboard

    check_request(session, path, None)
    return run_onboard(path, None, session)


def _followed(settings: Settings, folders: Sequence[str]) -> list[Result]:
    """Let all arrive, then follow one after another; workers take them as they can."""
    begun = [_or_error(path, follow.begin, settings, Path(path), None) for path in folders]
    return [
        _or_error(path, follow.end, settings, one) if isinstance(one, str) else one
        for path, one in zip(folders, begun, strict=True)
    ]


def _or_error(path: str, act: Callable[P, T], *given: P.args, **named: P.kwargs) -> T | Result:
    try:
        return act(*given, **named)
    except ClrError as error:
        return _ended(path, error)


def _ended(path: str, error: ClrError) -> Result:
    LOG.warning("onboard   %s: %s", path, error.message)
    return {"path": path, **error.as_dict()}
