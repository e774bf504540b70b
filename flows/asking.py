"""Flows that ask the release service and tell what came of it: they promote nothing themselves.

Their workers hold no release password. They sign a message with the webhook's secret; the
service looks at reviews and gate as ever, so that asking approves nothing.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

from prefect import flow

from clr.errors import ServiceUnavailable, UsageError
from flows import running, tracking
from flows.session import Session

if TYPE_CHECKING:
    from clr.registry.versions import Version

LOG = logging.getLogger("clr")
Result = dict[str, Any]
FOLLOW_SECONDS = 2.0
_SECONDS = 15.0
_FLOW: dict[str, Any] = {"persist_result": False}


@flow(name="promote", flow_run_name="promote-{task}-{version}", **_FLOW)
def promote(task: str, version: int) -> Result:
    """Ask the release service to carry out what was decided about a version, and wait for it.

    Args:
        task: name of the task, as `clr status` shows it.
        version: number of its version, as the registry shows it.

    Raises:
        UsageError: no such version.
        ReviewRefused, GateRefused, IntegrityBroken: the service refused it; the sentence is its
            own.
        ServiceUnavailable: the service cannot be asked, or does not do it in good time.
    """
    from clr.registry.versions import get_version

    session = tracking.opened(None)
    known = get_version(session.registry, task, version)
    before = max((entry.seq for entry in _told(session, known)), default=0)
    ask(session, {"task": task, "version": version})
    deadline = time.monotonic() + 60 * session.settings.step_minutes
    while time.monotonic() < deadline:
        # what it refused before counts once it has looked again and found nothing new to say
        idle = _is_idle(session)
        found = _outcome(session, known, 0 if idle else before)
        if found is not None:
            return found
        time.sleep(FOLLOW_SECONDS)
    raise ServiceUnavailable(
        f"The release service has not carried out {task} version {version} in good time.",
        fix="See its log; it goes on by itself. CLR_STEP_MINUTES says how long this run waits.",
    )


@flow(name="reconcile", **_FLOW)
def reconcile() -> Result:
    """Ask the release service to look for what nobody carried out, and wait until it is done.

    Raises:
        ServiceUnavailable: the service cannot be asked, or does not do it in good time.
    """
    from flows.reconcile import look

    session = tracking.opened(None)
    before = look(session)
    ask(session, {})
    deadline = time.monotonic() + 60 * session.settings.step_minutes
    left = before
    while left and time.monotonic() < deadline:
        time.sleep(FOLLOW_SECONDS)
        left = look(session)
    if left:
        raise ServiceUnavailable(
            "The release service has not done all that is left to do in good time.",
            fix="See its log; it goes on by itself.",
        )
    return {"decided": [f"{task}/{version}" for task, version in before.decided]}


def ask(session: Session, body: Result) -> None:
    """Send a signed ``POST /look`` to the release service.

    Args:
        session: the workspace.
        body: {task, version}; empty: look for everything that is left to do.

    Raises:
        UsageError: its address or the webhook's secret is not known here.
        ServiceUnavailable: it does not answer, or refuses.
    """
    import httpx

    from clr.registry.webhook import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

    url, secret = _service(session), _secret(session)
    data = json.dumps(body).encode()
    delivery, stamp = str(uuid.uuid4()), str(int(time.time()))
    headers = {
        DELIVERY_HEADER: delivery,
        TIMESTAMP_HEADER: stamp,
        SIGNATURE_HEADER: sign(secret, delivery, stamp, data),
    }
    try:
        answer = httpx.post(f"{url}/look", content=data, headers=headers, timeout=_SECONDS)
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceUnavailable(
            f"The release service at {url} cannot be asked: {error}.",
            fix="Start it with `clr up`; see that both have the same CLR_WEBHOOK_SECRET.",
        ) from error


def _service(session: Session) -> str:
    found = running.find(session.settings)
    url = session.settings.release_service or (found.service if found else "")
    if not url:
        raise UsageError(
            "The address of the release service is not known here.",
            fix="Set CLR_RELEASE_SERVICE, or start it in this workspace with `clr up`.",
        )
    return url.rstrip("/")


def _secret(session: Session) -> str:
    from clr.registry.server.secrets import WEBHOOK_SECRET, find_secret

    secret = find_secret(session.settings.state, WEBHOOK_SECRET)
    if not secret:
        raise UsageError(
            "The webhook's secret is not known here.",
            fix="Set CLR_WEBHOOK_SECRET or CLR_WEBHOOK_SECRET_FILE for this worker.",
        )
    return secret


def _is_idle(session: Session) -> bool:
    """Say whether the service has done all that it was asked for."""
    import httpx

    try:
        said = httpx.get(f"{_service(session)}/health", timeout=_SECONDS).json()
        return not said["waiting"] and not said["busy"]
    except (httpx.HTTPError, ValueError, KeyError):
        return False


def _told(session: Session, version: Version) -> list[Any]:
    from flows.promote import CLOSED, REFUSED, entries_about

    return [one for kind in (REFUSED, CLOSED) for one in entries_about(session, version, kind)]


def _outcome(session: Session, version: Version, before: int) -> Result | None:
    """Return what became of a version; None while nothing has.

    Args:
        session: the workspace.
        version: what was asked about.
        before: entries of the ledger up to this number are old.

    Raises:
        ReviewRefused, GateRefused, IntegrityBroken: it was refused.
    """
    from clr.registry.releases import current_release
    from flows.promote import CLOSED, refusal
    from flows.reconcile import waits_for_approval
    from flows.standing import facts, tally

    named = {"task": version.task, "version": version.version}
    release = current_release(session.registry)
    champion = release.tasks.get(version.task) if release else None
    if release is not None and champion is not None and champion.version == version.version:
        return {**named, "release": release.version, "release_digest": release.digest}
    for entry in _told(session, version):
        if entry.action == CLOSED:
            return {**named, "decision": "reject", "reason": entry.payload.get("reason", "")}
        if entry.seq > before:
            raise refusal(entry)
    counted = tally(session, facts(session, version))
    if not counted.rejections and not counted.reached:
        return {**named, "waiting": "more people have to approve it"}
    if waits_for_approval(session, version):
        return {**named, "waiting": "it was taken back: somebody has to approve it again"}
    return None
