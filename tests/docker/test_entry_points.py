"""The containers' processes together: an onboarding in PostgreSQL and S3, reviewed and released."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import boto3
import psycopg
import pytest
import requests

from tests.conftest import make_task
from tests.docker.stack import Stack, prepare
from tests.postgres import _programs
from tests.waiting import until

# eight processes that load their libraries one after another, where cores are few
pytestmark = [
    pytest.mark.xdist_group("containers"),
    pytest.mark.timeout(900),
    pytest.mark.soak,
]
API = "/api/2.0/mlflow"
WAIT_SECONDS = 300
ROLES = ("registry", "ledger", "append", "prefect")


@pytest.fixture(scope="module")
def stack(s3, postgres_server, backbone_settings, tmp_path_factory) -> Iterator[Stack]:
    """Registry, Prefect's server and release service, from the files of the containers."""
    from clr.data.workspace import init_workspace
    from clr.registry.server.templates import TEMPLATES

    root = tmp_path_factory.mktemp("containers")
    init_workspace(root / "workspace", TEMPLATES)
    stack = prepare(root, root / "workspace", postgres_server, s3, _programs(), backbone_settings)
    try:
        stack.start("prefect")
        stack.start("buckets")
        stack.start("registry")
        stack.wait("prefect", "registry")
        stack.start("release-service")
        stack.start("deployments")
        stack.start("worker-cpu")
        stack.start("watcher")
        stack.wait("release-service", "worker-cpu", "watcher")
        yield stack
    finally:
        stack.stop()
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            for database in ("clr", "prefect"):
                connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
            for role in ROLES:
                connection.execute(f"DROP ROLE IF EXISTS clr_{role}")


def client(s3: str) -> Any:
    return boto3.client(
        "s3", endpoint_url=s3, aws_access_key_id="a", aws_secret_access_key="b",
        region_name="us-east-1",
    )  # fmt: skip


def keys(s3: str, bucket: str) -> dict[str, int]:
    pages = client(s3).get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", ())}


def test_from_a_dropped_folder_to_a_release(stack, s3, tmp_path):
    dropped = stack.workspace / "incoming" / "red-caps"
    make_task(tmp_path / "red-caps", 0).rename(dropped)
    (dropped / "READY").touch()
    url = f"{stack.url('registry')}{API}"
    trainer = ("clr-trainer", stack.secret("trainer.password"))

    def alias(model: str, name: str) -> str:
        time.sleep(0.5)  # the registry has better things to do than to answer this
        found = requests.get(
            f"{url}/registered-models/alias", params={"name": model, "alias": name},
            auth=trainer, timeout=30,
        )  # fmt: skip
        return str(found.json()["model_version"]["version"]) if found.ok else ""

    assert until(lambda: alias("clr-red-caps", "candidate"), WAIT_SECONDS) == "1", stack.log(
        "worker-cpu"
    )
    files = keys(s3, "clr-artifacts")
    assert any(key.endswith("/artifacts/adapter.safetensors") for key in files)
    assert all(key.startswith("mlflow/") for key in files)
    images = sum(1 for _ in (stack.workspace / "data" / "red-caps").rglob("*.png"))
    assert 0 < images <= len(keys(s3, "clr-data"))
    adding = ("users", "add", "alice", "--role", "reviewer")
    added = stack.execute("clr", *adding, CLR_PASSWORD="x" * 12)
    assert added.returncode == 0, added.stderr
    approval = {"name": "clr-red-caps", "version": "1", "key": "review", "value": "approved"}
    answer = requests.post(
        f"{url}/model-versions/set-tag", json=approval, auth=("alice", "x" * 12), timeout=60
    )
    assert answer.status_code == 200, answer.text
    assert until(lambda: alias("clr-release", "champion"), WAIT_SECONDS) == "1", stack.log(
        "release-service"
    )
    checked = stack.execute("worker-cpu", "verify", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout)["problems"] == []
    for name in ("registry", "release-service", "worker-cpu"):  # all is in PostgreSQL and S3
        state = stack.state(name)
        databases = ("mlflow.db", "auth.db", "ledger/ledger.db", "prefect/prefect.db")
        assert not [one for one in databases if (state / one).exists()], name
        assert not (state / "artifacts").exists(), name
        assert not [*state.glob("secrets/*")], "secrets of files are written down nowhere"


def test_who_runs_flows_can_add_to_the_ledger_and_do_nothing_else(stack):
    url = stack.secret("postgres.append.url")
    for statement in (
        "UPDATE clr_ledger SET actor = 'me'",
        "DELETE FROM clr_ledger",
        "TRUNCATE clr_ledger",
        "ALTER TABLE clr_ledger DISABLE TRIGGER ALL",
        "DROP TABLE clr_ledger",
        "CREATE TABLE mine (n int)",
        "SELECT * FROM public.model_versions",
        "SELECT * FROM public.users",
    ):
        with (
            psycopg.connect(url) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM clr_ledger").fetchone()[0] > 0
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(url.removesuffix("/clr") + "/prefect")


def test_files_in_s3_are_written_once_and_through_the_server(stack, s3):
    url = stack.url("registry")
    trainer = ("clr-trainer", stack.secret("trainer.password"))
    (key,) = (key for key in keys(s3, "clr-artifacts") if key.endswith("/adapter.safetensors"))
    path = key.removeprefix("mlflow/")
    place = f"{url}/api/2.0/mlflow-artifacts/artifacts/{path}"
    before = client(s3).get_object(Bucket="clr-artifacts", Key=key)["Body"].read()
    assert requests.get(place, auth=trainer, timeout=30).content == before
    for method in ("PUT", "DELETE"):
        refused = requests.request(method, place, data=b"other", auth=trainer, timeout=30)
        assert (refused.status_code, refused.json()["error_code"]) == (403, "PERMISSION_DENIED")
    run, folder = path.split("/")[1], f"{url}/api/2.0/mlflow-artifacts"
    around = (
        ("POST", f"{folder}/mpu/create/1/new/artifacts", {"path": "a", "num_parts": 1}),
        ("GET", f"{folder}/presigned/{path}", None),
        ("POST", f"{url}{API}/artifacts/presigned-upload-url", {"run_id": run, "path": "a"}),
    )
    for method, address, body in around:
        answer = requests.request(method, address, json=body, auth=trainer, timeout=30)
        assert not answer.ok
        assert s3 not in answer.text
        assert "X-Amz-Signature" not in answer.text
    assert client(s3).get_object(Bucket="clr-artifacts", Key=key)["Body"].read() == before


def test_a_file_removed_from_the_bucket_is_noticed(stack, s3):
    (key,) = (key for key in keys(s3, "clr-artifacts") if key.endswith("/adapter.safetensors"))
    store = client(s3)
    good = store.get_object(Bucket="clr-artifacts", Key=key)["Body"].read()
    try:
        store.delete_object(Bucket="clr-artifacts", Key=key)
        checked = stack.execute("worker-cpu", "verify", "--json")
    finally:
        store.put_object(Bucket="clr-artifacts", Key=key, Body=good)
    assert checked.returncode == 6, checked.stdout + checked.stderr
    assert "red-caps" in json.loads(checked.stdout)["problems"][0]["subject"]


def test_what_serves_is_changed_in_the_release_services_container(stack):
    """The image of `clr` has no PyTorch, and its container does not reach Prefect's locks."""
    why = ("--reason", "the line was sold", "--json")
    for command in (("retire", "red-caps"), ("rollback",)):
        refused = stack.execute("clr", *command, *why)
        assert refused.returncode == 7, refused.stdout + refused.stderr
        assert "docker compose exec release-service" in refused.stderr
        done = stack.execute("release-service", *command, *why)
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["release"] == 1
