"""The webhook's signature, window and replay; forged ones get no further."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.registry.webhook import (
    DELIVERY_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Hint,
    Seen,
    WebhookRefused,
    check,
    hint,
    sign,
)

SECRET = "between the server and the service"
NOW = 1_800_000_000.0


def event(**changed):
    data = {"name": "clr-animals", "version": "3", "key": "review", "value": "approved"}
    return json.dumps(
        {"entity": "model_version_tag", "action": "set", "timestamp": "…", "data": data | changed}
    ).encode()


EVENT = event()


def delivery(body=EVENT, secret=SECRET, number="a-1", at=NOW):
    timestamp = str(int(at))
    return {
        DELIVERY_HEADER: number,
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: sign(secret, number, timestamp, body),
    }


def refused(status, act, *arguments):
    with pytest.raises(WebhookRefused) as caught:
        act(*arguments)
    assert caught.value.status == status


def test_what_mlflow_itself_signs_is_accepted():
    from mlflow.webhooks.delivery import _generate_hmac_signature

    body = event()
    signature = _generate_hmac_signature(SECRET, "a-1", str(int(NOW)), body.decode())
    headers = {**delivery(), SIGNATURE_HEADER: signature}
    assert check(SECRET, headers, body, NOW) == "a-1"
    assert check(SECRET, {**headers, SIGNATURE_HEADER: f"v1,AAAA {signature}"}, body, NOW) == "a-1"


@pytest.mark.parametrize("late", [-299, 0, 299])
def test_within_five_minutes_of_our_clock_it_is_fresh(late):
    assert check(SECRET, delivery(), event(), NOW + late) == "a-1"


@pytest.mark.parametrize("late", [-302, 302, 86_400])
def test_an_old_or_future_one_is_refused(late):
    refused(401, check, SECRET, delivery(), event(), NOW + late)


@pytest.mark.parametrize(
    "headers",
    [
        delivery(secret="another"),
        delivery(body=event(value="rejected")),
        {**delivery(), DELIVERY_HEADER: "a-2"},
        {**delivery(), TIMESTAMP_HEADER: str(int(NOW) + 1)},
        {**delivery(), SIGNATURE_HEADER: ""},
        {**delivery(), SIGNATURE_HEADER: "v1,"},
        {**delivery(), SIGNATURE_HEADER: "v1,not base64 ü"},
        {**delivery(), SIGNATURE_HEADER: delivery()[SIGNATURE_HEADER].replace("v1", "v2")},
        {**delivery(), SIGNATURE_HEADER: delivery()[SIGNATURE_HEADER][3:]},
    ],
)
def test_a_forged_one_is_refused(headers):
    refused(401, check, SECRET, headers, event(), NOW)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {**delivery(), DELIVERY_HEADER: ""},
        {**delivery(), DELIVERY_HEADER: "a" * 65},
        {**delivery(), DELIVERY_HEADER: "a.1"},
        {**delivery(), TIMESTAMP_HEADER: "1e9"},
        {**delivery(), TIMESTAMP_HEADER: "-1"},
        {**delivery(), TIMESTAMP_HEADER: "٣"},
    ],
)
def test_one_without_a_proper_id_or_time_is_refused(headers):
    refused(400, check, SECRET, headers, event(), NOW)


def test_without_a_secret_nothing_is_accepted():
    refused(401, check, "", delivery(secret=""), event(), NOW)


def test_a_point_moved_between_id_and_time_changes_the_signature():
    assert sign(SECRET, "a-1", "12", b"") != sign(SECRET, "a-11", "2", b"")


@given(st.binary(max_size=200))
def test_any_other_body_breaks_the_signature(body):
    refused(401, check, SECRET, delivery(), body + b" ", NOW)


def test_a_review_names_its_version():
    assert hint(event()) == Hint("animals", 3)
    assert hint(event(value="anything at all")) == Hint("animals", 3)


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "review.reason"},
        {"key": "clr.verdict"},
        {"name": "clr-release"},
        {"name": "somebody-elses"},
        {"name": "clr-../../x"},
        {"version": "0"},
        {"version": "1; DROP"},
    ],
)
def test_other_events_are_nothing_to_do(changed):
    assert hint(event(**changed)) is None


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b"\xff", event(version=3), event(name=None), b"[" * 60_000]
)
def test_what_is_no_event_is_refused(body):
    refused(400, hint, body)


def test_a_delivery_that_comes_again_is_a_replay():
    seen = Seen()
    seen.note("a", 0.0)
    seen.note("b", 1.0)
    refused(409, seen.note, "a", 599.0)
    seen.note("a", 601.0)  # its signature's window is long over


def test_a_flood_is_stopped_and_forgotten():
    seen = Seen(limit=3)
    for number in range(3):
        seen.note(str(number), 0.0)
    refused(429, seen.note, "3", 1.0)
    seen.note("3", 700.0)
