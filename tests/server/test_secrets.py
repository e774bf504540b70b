"""The server's secrets: made once, for their owner's eyes alone, or given by the environment."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.fernet import Fernet

from clr.errors import UsageError
from clr.registry.server import secrets
from clr.registry.server.secrets import ALL, ensure_secret, find_secret

IDS = [one.file for one in ALL]


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for one in ALL:
        monkeypatch.delenv(one.variable, raising=False)


@pytest.mark.parametrize("secret", ALL, ids=IDS)
def test_a_secret_is_made_once_in_a_file_of_its_owner(tmp_path, secret):
    made = ensure_secret(tmp_path, secret)
    path = tmp_path / "secrets" / secret.file
    assert path.read_text().strip() == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(made) >= 32
    assert ensure_secret(tmp_path, secret) == find_secret(tmp_path, secret) == made
    assert [one.name for one in path.parent.iterdir()] == [secret.file]


@pytest.mark.parametrize("secret", ALL, ids=IDS)
def test_the_environment_wins_and_is_never_written_down(tmp_path, monkeypatch, secret):
    given = Fernet.generate_key().decode()
    monkeypatch.setenv(secret.variable, given)
    assert ensure_secret(tmp_path, secret) == find_secret(tmp_path, secret) == given
    assert list(tmp_path.iterdir()) == []


def test_an_empty_variable_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("CLR_TRAINER_PASSWORD", "")
    assert ensure_secret(tmp_path, secrets.TRAINER_PASSWORD)
    assert (tmp_path / "secrets" / "trainer.password").exists()


def test_no_two_secrets_are_equal(tmp_path):
    assert len({ensure_secret(tmp_path, one) for one in ALL}) == len(ALL)


def test_the_webhook_key_is_one_that_fernet_takes(tmp_path):
    Fernet(ensure_secret(tmp_path, secrets.WEBHOOK_KEY).encode())


def test_who_comes_at_the_same_time_gets_the_same_secret(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        made = set(pool.map(lambda _: ensure_secret(tmp_path, secrets.FLASK_KEY), range(64)))
    assert len(made) == 1
    assert [one.name for one in (tmp_path / "secrets").iterdir()] == ["flask.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_could_have_read_is_not_used(tmp_path, mode):
    made = ensure_secret(tmp_path, secrets.ADMIN_PASSWORD)
    (tmp_path / "secrets" / "admin.password").chmod(mode)
    with pytest.raises(UsageError, match="can be read by others") as caught:
        ensure_secret(tmp_path, secrets.ADMIN_PASSWORD)
    assert made not in str(caught.value.as_dict())


def test_a_folder_that_others_may_enter_is_closed(tmp_path):
    (tmp_path / "secrets").mkdir(mode=0o755)
    ensure_secret(tmp_path, secrets.FLASK_KEY)
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (secrets.WEBHOOK_KEY, b"not a key"),
        (secrets.WEBHOOK_KEY, b"\xff\xfe"),
        (secrets.ADMIN_PASSWORD, b""),
        (secrets.ADMIN_PASSWORD, b"short"),
        (secrets.RELEASE_PASSWORD, b"two\nlines of it"),
    ],
)
def test_a_damaged_file_is_named_and_not_shown(tmp_path, secret, text):
    ensure_secret(tmp_path, secret)
    path = tmp_path / "secrets" / secret.file
    path.write_bytes(text)
    for read in (ensure_secret, find_secret):
        with pytest.raises(UsageError, match=secret.file) as caught:
            read(tmp_path, secret)
        assert "short" not in str(caught.value.as_dict())
    assert path.read_bytes() == text


@pytest.mark.parametrize("given", ["short", "x" * 300, "pässword-pässword", "two\nlines of it"])
def test_a_password_that_cannot_be_one_is_refused_by_the_name_of_its_variable(
    tmp_path, monkeypatch, given
):
    monkeypatch.setenv("CLR_RELEASE_PASSWORD", given)
    with pytest.raises(UsageError, match="CLR_RELEASE_PASSWORD") as caught:
        ensure_secret(tmp_path, secrets.RELEASE_PASSWORD)
    assert given not in str(caught.value.as_dict())


def test_looking_makes_nothing(tmp_path):
    assert find_secret(tmp_path, secrets.TRAINER_PASSWORD) == ""
    assert list(tmp_path.iterdir()) == []
