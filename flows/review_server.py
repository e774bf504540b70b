"""Approve or reject a version at a guarded server, as its page does, and wait for what follows.

The server decides who may; the release service promotes. This process does neither.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError, ReviewRefused, ServiceUnavailable
from clr.registry.acts import RELEASE_USER, SERVER_USER, TRAINER_USER
from clr.registry.denial import denial
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
        ReviewRefused: the server does not let this person decide so, with its sentence; or
            somebody else rejected it meanwhile, or the policy keeps it from serving.
        GateRefused: approved, but its gate does not pass.
        IntegrityBroken: approved, but its bytes are not those that were recorded.
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
        return {**_about(version, decision, person, reason), **_serving(release), "already": True}
    _set(session, version, "review.reason", reason)
    _set(session, version, "review", "approved" if decision == "approve" else "rejected")
    if decision == "reject":
        return _about(version, decision, person, reason)
    LOG.info("review    recorded by the server; the release service takes over")
    return {**_about(version, decision, person, reason), **wait(session, version)}


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


def wait(session: Session, version: Version) -> Result:
    """Wait for what comes of an approval.

    Returns:
        {release, release_digest, already}, or {waiting} while more people have to approve.

    Raises:
        ClrError: see `review_on_server`.
    """
    from clr.registry.releases import current_release
    from clr.registry.reviews import REJECTED, word
    from flows.promote import REFUSED, entries_about, refusal

    said = f"{version.task} version {version.version}"
    refused_before = len(entries_about(session, version, REFUSED))
    started = time.monotonic()
    while (waited := time.monotonic() - started) < WAIT_SECONDS:
        now = _again(session, version)
        if "champion" in now.aliases:
            release = current_release(session.registry)
            if release is not None:
                return {**_serving(release), "already": False}
        if word(now.review) == REJECTED:
            raise ReviewRefused(
                f"{said} was rejected by somebody else meanwhile.",
                fix="Its page says by whom and why; a rejected version stays rejected.",
            )
        refused = entries_about(session, version, REFUSED)
        if refused and (len(refused) > refused_before or waited > SAME_SECONDS):
            raise refusal(refused[-1])
        if now.review == "pending":  # the server sets it back while the quorum is open
            approvals = now.tags.get("clr.approvals", "too few")
            waiting = f"It has {approvals} approvals so far; more people have to approve it."
            return {"waiting": waiting}
        time.sleep(LOOK_SECONDS)
    raise ServiceUnavailable(
        f"The approval of {said} is recorded, but it is not champion after {WAIT_SECONDS:.0f} s.",
        fix="See whether the release service runs (`clr up registry`); it promotes what it finds "
        "approved. `clr promote` on the server's machine does it at once.",
    )


def _about(version: Version, decision: str, person: str, reason: str) -> Result:
    return {
        "task": version.task,
        "version": version.version,
        "decision": decision,
        "reason": reason,
        "reviewer": person,
    }


def _serving(release: Any) -> Result:
    return {"release": release.version, "release_digest": release.digest}
