"""Keys: made once, private, and the only ones whose signatures count."""

from __future__ import annotations

import dataclasses
import stat

import pytest

from clr.audit.signing import Head, is_signed, load_signer, trusted_keys
from clr.errors import IntegrityBroken, ServiceUnavailable

HASH = "sha256:" + "a" * 64


def test_the_key_is_made_once_and_readable_by_its_owner_only(tmp_path):
    signer = load_signer(tmp_path / "keys")
    assert load_signer(tmp_path / "keys").key_id == signer.key_id
    assert stat.S_IMODE((tmp_path / "keys/ledger.key").stat().st_mode) == 0o600


def test_a_head_signed_here_is_trusted_here_and_nowhere_else(tmp_path):
    head = load_signer(tmp_path / "here").sign(7, HASH)
    load_signer(tmp_path / "there")
    assert is_signed(head, trusted_keys(tmp_path / "here"))
    assert not is_signed(head, trusted_keys(tmp_path / "there"))


@pytest.mark.parametrize("change", [{"seq": 8}, {"hash": HASH[:-1] + "b"}, {"signature": "AAAA"}])
def test_a_changed_head_is_not_signed(tmp_path, change):
    head = load_signer(tmp_path).sign(7, HASH)
    assert not is_signed(dataclasses.replace(head, **change), trusted_keys(tmp_path))


def test_a_head_survives_its_file(tmp_path):
    head = load_signer(tmp_path).sign(7, HASH)
    assert Head.from_json(head.to_json()) == head


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"schema": "clr.ledger-head/1", "seq": "7"}'],
)
def test_a_file_that_is_no_head_is_refused(data):
    with pytest.raises(IntegrityBroken, match="head") as caught:
        Head.from_json(data)
    assert "NoneType" not in caught.value.message


def test_a_key_that_others_may_read_is_refused(tmp_path):
    load_signer(tmp_path)
    (tmp_path / "ledger.key").chmod(0o644)
    with pytest.raises(IntegrityBroken, match="chmod 600"):
        load_signer(tmp_path)


@pytest.mark.parametrize("name", ["ledger.key", "other.pub"])
def test_a_key_file_of_another_form_is_refused(tmp_path, name):
    (tmp_path / name).write_text("-----BEGIN NONSENSE-----")
    (tmp_path / name).chmod(0o600)
    with pytest.raises(IntegrityBroken, match="Ed25519"):
        load_signer(tmp_path) if name == "ledger.key" else trusted_keys(tmp_path)


def test_no_place_for_a_key_is_said_so(open_state, somebody_else):
    open_state.mkdir(mode=0o755)
    open_state.chmod(0o555)
    with somebody_else(), pytest.raises(ServiceUnavailable, match="signing key"):
        load_signer(open_state)
