"""Webhooks that MLflow did not send, at the port of the release service."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable

import requests

from clr.registry.webhook import sign
from tests.candidate import ok
from tests.house import House
from tests.server.attempts.model import BAD, UNAUTHENTICATED, Attempt, How, Stage

EVENT = {
    "entity": "model_version_tag",
    "action": "set",
    "timestamp": "2026-01-01T00:00:00+00:00",
    "data": {"name": "clr-plain", "version": "1", "key": "review", "value": "approved"},
}
LOST = (400, 401, 403, 404, 405, 413)


def service(house: House) -> dict[str, str]:
    """Where the release service listens, and the secret that it shares with MLflow."""
    hook = ok(house.call("admin", "GET", "webhooks"))["webhooks"][0]
    secret = (house.plant.state / "secrets" / "webhook.secret").read_text().strip()
    house.version("plain")
    return {"url": hook["url"], "secret": secret}


def deliver(
    *,
    event: object = EVENT,
    secret: str = "",
    late: float = 0.0,
    twist: Callable[[dict[str, str], bytes], tuple[dict[str, str], bytes]] | None = None,
    times: int = 1,
) -> How:
    """Send a delivery as MLflow would, but for one thing.

    Args:
        event: body.
        secret: to sign with; the right one where empty.
        late: seconds since it was signed.
        twist: changes headers and body after signing.
        times: how often the same is sent; the last answer counts.
    """

    def do(stage: Stage) -> requests.Response:
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        delivery, timestamp = str(uuid.uuid4()), str(int(time.time() - late))
        headers = {
            "Content-Type": "application/json",
            "X-MLflow-Delivery-Id": delivery,
            "X-MLflow-Timestamp": timestamp,
            "X-MLflow-Signature": sign(secret or stage.on["secret"], delivery, timestamp, body),
        }
        if twist:
            headers, body = twist(headers, body)
        for _ in range(times):
            answer = requests.post(stage.on["url"], data=body, headers=headers, timeout=30)
        return answer

    return do


def without(*names: str):
    """Leave headers out."""
    return lambda headers, body: ({k: v for k, v in headers.items() if k not in names}, body)


def instead(name: str, value: str):
    """Send another value of a header."""
    return lambda headers, body: ({**headers, name: value}, body)


def other_body(headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """Another version than the signature is for."""
    return headers, body.replace(b'"1"', b'"2"')


ROWS = [
    Attempt("", f"sends the release service a webhook {words}", how, ".", status, given=service,
            actor="-")
    for words, how, status in [
        ("without a signature", deliver(twist=without("X-MLflow-Signature")), UNAUTHENTICATED),
        ("without any of MLflow's headers", deliver(twist=without(
            "X-MLflow-Signature", "X-MLflow-Delivery-Id", "X-MLflow-Timestamp")), BAD),
        ("signed with another secret", deliver(secret="a-guess-at-the-secret"), UNAUTHENTICATED),
        ("with the signature of another body", deliver(twist=other_body), UNAUTHENTICATED),
        ("with the signature of another time",
         deliver(late=60, twist=lambda h, b: ({**h, "X-MLflow-Timestamp": str(int(time.time()))},
                                              b)), UNAUTHENTICATED),
        ("with the signature of another delivery",
         deliver(twist=instead("X-MLflow-Delivery-Id", str(uuid.uuid4()))), UNAUTHENTICATED),
        ("with an empty signature", deliver(twist=instead("X-MLflow-Signature", "v1,")),
         UNAUTHENTICATED),
        ("that was signed ten minutes ago", deliver(late=600), UNAUTHENTICATED),
        ("that is signed for in ten minutes", deliver(late=-600), UNAUTHENTICATED),
        ("that it has received before", deliver(times=2), 409),
        ("that is no event", deliver(event=b"[1, 2"), BAD),
        ("of a million letters", deliver(event=b'"' + b"x" * 1_000_000 + b'"'), LOST),
    ]
] + [
    Attempt("", "sends a properly signed webhook that claims an approval nobody has given",
            deliver(), given=service,
            shows="looked at, and nothing is promoted: what it claims is not believed"),
]  # fmt: skip
