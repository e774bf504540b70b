"""Parts of a container's start that need no service: what each may know, keys, first secrets."""

from __future__ import annotations

import json
import resource
import stat

import pytest

from clr.audit.ledger import open_ledger
from clr.audit.signing import new_key, place_keys
from clr.data.workspace import init_workspace
from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from clr.registry.server.secrets import ALL
from clr.serving.keys import new_written_key
from clr.settings import load_settings
from flows import entry, processes
from flows.provision import provision

GIVEN = {one.variable: f"{one.file}-of-twelve-and-more" for one in ALL}
GIVEN["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"] = "A" * 43 + "="
GIVEN["PREFECT_SERVER_API_AUTH_STRING"] = "clr:a-password-of-prefect"
GIVEN["CLR_SERVE_METRICS_KEY"] = new_written_key()[1]
GIVEN["CLR_REGISTRY_DATABASE"] = "postgresql://clr_registry:hidden@db/clr"
GIVEN["CLR_PREFECT_DATABASE"] = "postgresql://clr_prefect:hidden@db/prefect"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    init_workspace(tmp_path / "w")
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLR_REGISTRY_URL", "http://registry:5000")
    monkeypatch.setenv("CLR_RELEASE_SERVICE", "http://release-service:5001")
    return load_settings(tmp_path / "w")


@pytest.mark.parametrize(
    ("name", "pool", "knows"),
    [
        ("worker", "cpu", {"CLR_TRAINER_PASSWORD"}),
        ("worker", "registry", {"CLR_TRAINER_PASSWORD", "CLR_WEBHOOK_SECRET"}),
        ("watcher", "", {"CLR_TRAINER_PASSWORD"}),
        ("serving", "", {"CLR_SERVER_PASSWORD", "CLR_SERVE_METRICS_KEY"}),
        ("release-service", "", {"CLR_WEBHOOK_SECRET"}),
    ],
)
def test_a_process_knows_what_it_needs_even_where_all_is_given(settings, name, pool, knows):
    environment = processes.start(settings, name, pool).environment
    assert {one for one in GIVEN if environment.get(one) == GIVEN[one]} == knows
    release = GIVEN["CLR_RELEASE_PASSWORD"]
    holders = [key for key, value in environment.items() if value == release]
    assert holders == (["MLFLOW_TRACKING_PASSWORD"] if name == "release-service" else [])


@pytest.mark.parametrize(("name", "pool"), [("worker", "cpu"), ("watcher", ""),
                                            ("release-service", "")])  # fmt: skip
def test_who_opens_the_data_knows_where_it_is_and_by_which_key(settings, monkeypatch, name, pool):
    given = {"CLR_DVC_REMOTE": "s3://clr-data/dvc", "AWS_ENDPOINT_URL": "http://s3:8333",
             "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "data",
             "AWS_SECRET_ACCESS_KEY": "hidden"}  # fmt: skip
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    environment = processes.start(load_settings(settings.workspace), name, pool).environment
    assert {one: environment.get(one) for one in given} == given


def test_the_release_service_listens_as_far_as_its_address_reaches(settings, monkeypatch):
    command = processes.start(settings, "release-service").command
    assert command[-4:] == ("--host", "0.0.0.0", "--port", "5001")
    monkeypatch.setenv("CLR_RELEASE_SERVICE", "http://127.0.0.1:7001")
    command = processes.start(load_settings(settings.workspace), "release-service").command
    assert command[-4:] == ("--host", "127.0.0.1", "--port", "7001")


@pytest.mark.parametrize(("name", "about"), [("worker", "tpu"), ("worker", ""), ("shell", "")])
def test_there_is_no_such_process(settings, name, about):
    with pytest.raises(UsageError, match="There is no"):
        processes.start(settings, name, about)


def test_a_command_that_is_not_there_is_named(settings, monkeypatch, capsys):
    monkeypatch.setenv("CLR_WORKSPACE", str(settings.workspace))
    for command in ("no-such-command", str(settings.workspace)):
        with pytest.raises(SystemExit) as ended:
            entry.main(["run", command, "--help"])
        assert ended.value.code == 2
        assert f"{command!r} cannot be run" in capsys.readouterr().err


def test_health_is_an_exit_code(capsys):
    for url in ("http://127.0.0.1:9/health", "nonsense", ""):
        with pytest.raises(SystemExit) as ended:
            entry.main(["healthy", url])
        assert ended.value.code == 1


def test_first_secrets_are_made_once_and_fit_together(tmp_path, capsys):
    folder = tmp_path / "secrets"
    provision(str(folder))
    first = {path.name: path.read_text() for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    (folder / "postgres.append.url").unlink()
    (folder / "ledger.trusted").unlink()
    provision(str(folder))
    assert {path.name: path.read_text() for path in folder.iterdir()} == first
    assert first["postgres.append"].strip() in first["postgres.append.url"]
    rights = {one["name"]: one for one in json.loads(first["s3.json"])["identities"]}
    assert rights["data"]["credentials"][0]["secretKey"] == first["s3.data.key"].strip()
    assert not [one for one in rights["data"]["actions"] if not one.endswith(":clr-data")]
    assert "hidden" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lost", "holder"),
    [
        ("s3.data.key", "s3.json"),
        ("ledger.release.key", "ledger.trusted"),
        ("postgres.append", "postgres.append.url"),
    ],
)
def test_no_secret_is_made_anew_that_another_file_still_holds(tmp_path, capsys, lost, holder):
    provision(str(tmp_path))
    (tmp_path / lost).unlink()
    with pytest.raises(UsageError, match=f"has {holder}, but not {lost}"):
        provision(str(tmp_path))
    assert not (tmp_path / lost).exists()
    (tmp_path / holder).unlink()
    provision(str(tmp_path))
    held = (tmp_path / holder).read_text()
    assert "PRIVATE" in (text := (tmp_path / lost).read_text()) or text.strip() in held


def test_a_full_disk_leaves_no_secret_that_is_empty(tmp_path, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))  # the system refuses the rest
    try:
        with pytest.raises(ServiceUnavailable, match="cannot be written"):
            provision(str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    provision(str(tmp_path))
    assert min(path.stat().st_size for path in tmp_path.iterdir()) > 12


def test_writers_of_one_ledger_trust_each_other(tmp_path):
    keys = [new_key() for _ in range(2)]
    trusted = "".join(public for _, public in keys)
    for name, (private, _) in zip("ab", keys, strict=True):
        place_keys(tmp_path / name / "keys", private, trusted)
        place_keys(tmp_path / name / "keys", private, trusted)
        ledger = open_ledger(tmp_path / name)
        ledger.append("tested", name, actor="test", authentication="test")
        told = {one.kind for one in ledger.verify()}
        # the other's key has signed nothing yet; of a ledger in PostgreSQL, which several
        # machines share, that is not said
        assert told == {"foreign-key"}
    pubs = [sorted(one.name for one in (tmp_path / n / "keys").glob("*.pub")) for n in "ab"]
    assert pubs[0] == pubs[1]
    assert len(pubs[0]) == 2
    with pytest.raises(UsageError, match="another key"):
        place_keys(tmp_path / "a" / "keys", keys[1][0], trusted)
    with pytest.raises(IntegrityBroken, match="no Ed25519"):
        place_keys(tmp_path / "c", keys[0][0], trusted.replace("MC", "XX"))
