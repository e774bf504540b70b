"""The form of one entry: what may stand in it, and what its hash covers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.audit import chain
from clr.errors import IntegrityBroken, UsageError

ROW: dict[str, Any] = {
    "seq": 1,
    "time": "2026-01-31T12:00:00.000000Z",
    "actor": "ada",
    "authentication": "local-os-user",
    "action": "review.approved",
    "subject": "clr-animals/3",
    "payload": '{"reason":"seen, good"}',
    "key": None,
    "previous": chain.GENESIS,
    "key_id": "sha256:" + "1" * 64,
}


def test_the_hash_of_this_entry_never_changes():
    assert chain.digest(ROW) == (
        "sha256:02b03bbcc39e8013e226a2c1f537860364d3ef2a64bb57449fea9e134c34ffe3"
    )


@pytest.mark.parametrize("field", sorted(ROW))
def test_the_hash_covers_every_field(field):
    other = ROW[field] + 1 if field == "seq" else f"{ROW[field]} "
    assert chain.digest({**ROW, field: other}) != chain.digest(ROW)


json_values = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(-(2**53) + 1, 2**53 - 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_equal_payloads_are_equal_text_whatever_their_order(payload):
    backwards = dict(reversed(payload.items()))
    assert chain.payload_text(payload) == chain.payload_text(backwards)


@pytest.mark.parametrize(
    "payload", [{"x": float("nan")}, {"x": 2**60}, {"x": {1, 2}}, {1: "x"}, {"x": b"bytes"}]
)
def test_a_payload_that_json_cannot_carry_is_refused(payload):
    with pytest.raises(UsageError, match="payload"):
        chain.payload_text(payload)


def test_a_payload_beyond_a_mebibyte_is_refused():
    with pytest.raises(UsageError, match="artifact"):
        chain.payload_text({"x": "a" * chain.MAX_PAYLOAD})


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\0b", "\ud800", "a" * 5000])
def test_text_that_not_every_database_keeps_is_refused(text):
    with pytest.raises(UsageError):
        chain.check_text("subject", text)


def test_times_are_utc_and_sort_as_text():
    early = chain.format_time("2026-01-31T12:00:00+02:00")
    assert early == "2026-01-31T10:00:00.000000Z"
    assert early < chain.utc_now()
    assert chain.format_time("0999-01-01T00:00:00Z") == "0999-01-01T00:00:00.000000Z"


@pytest.mark.parametrize("moment", ["yesterday", "2026-01-31T12:00:00", "0001-01-01T00:00:00+05:00",
                                    "9999-12-31T23:00:00-05:00"])  # fmt: skip
def test_a_time_without_zone_or_beyond_the_calendar_is_refused(moment):
    with pytest.raises(UsageError, match="time zone"):
        chain.format_time(moment)


def test_a_stored_payload_that_is_no_object_is_named():
    row = {**ROW, "payload": "[1]", "hash": "", "signature": ""}
    with pytest.raises(IntegrityBroken, match="Entry 1"):
        chain.entry(row)
