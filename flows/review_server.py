"""Approve or reject a version at a guarded server, as its page does, and wait for what follows.

The server decides who may; the release service promotes. This process does neither.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError, GateRefused, ReviewRefused, ServiceUnavailable
from clr.registry.acts import RELEASE_USER, SERVER_USER, TRAINER_USER
from clr.registry.denial import denial
from clr.registry.names import PROMOTION
from clr.registry.versions import champion_of
from flows.session import Session

if TYPE_CHECKING:
    from clr.registry.versions import Version

LOG = logging.getLogger("clr")
Result = dict[str, Any]
WAIT_SECONDS, LOOK_SECONDS = 60.0, 0.5
SAME_SECONDS = 20.0
"""After so long a refusal that was there before was given again."""


def review_on_server(session: Session, version: Version, decision: str, reason: str) -> Result:
    """Send a decision to the server; after an approval wait for the promotion.

    Args:
        session: its registry is a guarded server.
        version: what is decided about.
        decision: ``approve`` or ``reject``.
        reason: the person's words.

    Returns:
        see `flows.review.run_review`.

    Raises:
        ReviewRefused: the server does not let this person decide so, with its sentence.
        GateRefused: approved, but the release service found that it may not serve.
        ServiceUnavailable: approved, but nothing came of it within a minute.
    """
    from clr.registry.releases import current_release

    person = _person()
    release = current_release(session.registry)
    if (
        decision == "approve"
        and release
        and release.tasks.get(version.task) == champion_of(version)
    ):
        return {**_about(version, decision, person), **_serving(release), "already": True}
    _set(session, version, "review.reason", reason)
    _set(session, version, "review", "approved" if decision == "approve" else "rejected")
    if decision == "reject":
        return _about(_again(session, version), decision, person)
    LOG.info("review    recorded by the server; the release service takes over")
    return _wait(session, version, person)


def _person() -> str:
    from mlflow.utils.credentials import read_mlflow_creds

    name = read_mlflow_creds().username or ""
    if not name or name in (TRAINER_USER, RELEASE_USER, SERVER_USER):
        raise ReviewRefused(
            "The registry has to know who decides.",
            fix="Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to those of a "
            "reviewer, or decide in its page.",
        )
    return name


def _set(session: Session, version: Version, tag: str, value: str) -> None:
    from clr.registry.versions import set_version_tags

    try:
        if value:
            set_version_tags(session.registry, version, {tag: value})
    except ClrError as error:
        sentence = denial(error)
        if sentence is None:
            raise
        raise ReviewRefused(sentence, fix="Nothing has changed.") from error


def _again(session: Session, version: Version) -> Version:
    from clr.registry.versions import get_version

    return get_version(session.registry, version.task, version.version)


def _wait(session: Session, version: Version, person: str) -> Result:
    from clr.registry.releases import current_release

    told_before = version.tags.get(PROMOTION, "")
    started = time.monotonic()
    while (waited := time.monotonic() - started) < WAIT_SECONDS:
        now = _again(session, version)
        told = now.tags.get(PROMOTION, "")
        if "champion" in now.aliases:
            release = current_release(session.registry)
            if release is not None:
                about = _about(now, "approve", person)
                return {**about, **_serving(release), "already": False}
        fresh = told != told_before or waited > SAME_SECONDS
        if fresh and told.startswith("refused"):
            raise GateRefused(
                f"{version.task} version {version.version} was {told}",
                fix="Champions are unchanged.",
            )
        if now.review == "pending":  # the server sets it back while the quorum is open
            approvals = now.tags.get("clr.approvals", "too few")
            waiting = f"It has {approvals} approvals so far; more people have to approve it."
            return {**_about(now, "approve", person), "waiting": waiting}
        time.sleep(LOOK_SECONDS)
    raise ServiceUnavailable(
        f"The approval of {version.task} version {version.version} is recorded, but it is not "
        f"champion after {WAIT_SECONDS:.0f} s.",
        fix="See whether the release service runs (`clr up registry`); it promotes what it finds "
        "approved. `clr promote` on the server's machine does it at once.",
    )


def _about(version: Version, decision: str, person: str) -> Result:
    return {
        "task": version.task,
        "version": version.version,
        "decision": decision,
        "reason": version.tags.get("review.reason", ""),
        "reviewer": person,
    }


def _serving(release: Any) -> Result:
    return {"release": release.version, "release_digest": release.digest}
