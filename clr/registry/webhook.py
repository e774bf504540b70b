"""MLflow's webhook: who sent it, is it fresh, is it new, and which version it is about (pure).

MLflow signs ``id.timestamp.body`` with HMAC-SHA256 and says nothing about who set the tag, so
a delivery is only a hint to look at a version now: what it claims is never believed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from clr.errors import UsageError

DELIVERY_HEADER = "x-mlflow-delivery-id"
TIMESTAMP_HEADER = "x-mlflow-timestamp"
SIGNATURE_HEADER = "x-mlflow-signature"
WINDOW_SECONDS = 300.0
"""How far the sender's clock may be from ours, and how long a delivery's id is remembered."""

BODY_LIMIT = 65_536
"""Bytes; MLflow's largest tag event has about 11,000."""

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_SECONDS = re.compile(r"[0-9]{1,12}")
_MODEL = re.compile(r"clr-([a-z0-9][a-z0-9-]{0,62})")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class WebhookRefused(UsageError):
    """A delivery that is forged, stale, replayed, or no event of MLflow's.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Hint:
    """A version that somebody may have decided about.

    Attributes:
        task: task name.
        version: its number.
    """

    task: str
    version: int


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """Return the signature header of a delivery: ``v1,<base64 of HMAC-SHA256>``.

    Args:
        secret: shared with the server.
        delivery: its id.
        timestamp: whole seconds since 1970, as text.
        body: as sent.
    """
    content = f"{delivery}.{timestamp}.".encode() + body
    digest = hmac.new(secret.encode(), content, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def check(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """Return the id of a delivery that the registry server signed just now.

    Args:
        secret: shared with the server; never empty.
        headers: by lower-case name.
        body: as received.
        now: seconds since 1970.

    Raises:
        WebhookRefused: 400 where its form is wrong, 401 where signature or time are.
    """
    if not secret:
        raise WebhookRefused(401, "This service has no webhook secret.")
    delivery, timestamp = headers.get(DELIVERY_HEADER, ""), headers.get(TIMESTAMP_HEADER, "")
    if not _ID.fullmatch(delivery) or not _SECONDS.fullmatch(timestamp):
        raise WebhookRefused(400, "The delivery has no proper id or timestamp.")
    if not _signed(secret, delivery, timestamp, body, headers.get(SIGNATURE_HEADER, "")):
        raise WebhookRefused(401, "The signature is not that of the registry server.")
    if abs(now - int(timestamp)) > WINDOW_SECONDS:
        raise WebhookRefused(401, f"The delivery is older than {WINDOW_SECONDS:.0f} seconds.")
    return delivery


def _signed(secret: str, delivery: str, timestamp: str, body: bytes, given: str) -> bool:
    """Compare in constant time; a header may hold several signatures, as while a key changes."""
    wanted = base64.b64decode(sign(secret, delivery, timestamp, body).removeprefix("v1,"))
    good = False
    for one in given.split(" ")[:4]:
        version, _, text = one.partition(",")
        try:
            found = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        good |= version == "v1" and hmac.compare_digest(found, wanted)
    return good


def hint(body: bytes) -> Hint | None:
    """Return the version that an event is about; None for events that decide nothing.

    Raises:
        WebhookRefused: 400, the body is no event of MLflow's.
    """
    try:
        event = json.loads(body)
        kind, data = (event["entity"], event["action"]), event["data"]
        if kind != ("model_version_tag", "set") or data["key"] != "review":
            return None
        model, version = _MODEL.fullmatch(data["name"]), _VERSION.fullmatch(data["version"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WebhookRefused(400, "The body is not an event of MLflow's registry.") from error
    if model is None or version is None or model[1] == "release":
        return None
    return Hint(model[1], int(version[0]))


def request(body: bytes) -> Hint | None:
    """Return the version that a message to ``/look`` names; None where it asks for all.

    Raises:
        WebhookRefused: 400, the body is neither ``{}`` nor ``{"task": …, "version": …}``.
    """
    try:
        asked = json.loads(body)
        if asked == {}:
            return None
        task, version = asked.pop("task"), asked.pop("version")
        named = _MODEL.fullmatch(f"clr-{task}"), _VERSION.fullmatch(str(version))
        if asked or not all(named) or task == "release" or type(version) is not int:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WebhookRefused(400, "The body names no version of a task.") from error
    return Hint(str(task), version)


@dataclass
class Seen:
    """Ids of the deliveries of the last minutes; one that comes again is a replay.

    It lives in memory: after a restart a delivery of the last five minutes would pass once
    more, and would only make the service look at a version again.
    """

    limit: int = 100_000
    _times: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def note(self, delivery: str, now: float) -> None:
        """Remember an id.

        Args:
            delivery: id of a delivery whose signature was checked.
            now: seconds on any clock that only goes forward.

        Raises:
            WebhookRefused: 409, it was here before; 429, too many at once.
        """
        while self._times and next(iter(self._times.values())) < now - 2 * WINDOW_SECONDS:
            self._times.popitem(last=False)
        if delivery in self._times:
            raise WebhookRefused(409, "This delivery was received before.")
        if len(self._times) >= self.limit:
            raise WebhookRefused(429, "Too many deliveries.")
        self._times[delivery] = now
