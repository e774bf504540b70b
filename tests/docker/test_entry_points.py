"""The containers' processes together: an onboarding in PostgreSQL and S3, reviewed and released."""

from __future__ import annotations

import json
from collections.abc import Iterator

import boto3
import psycopg
import pytest
import requests

from tests.conftest import make_task
from tests.docker.stack import Stack, prepare
from tests.postgres import _programs
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("containers")
API = "/api/2.0/mlflow"
ROLES = ("registry", "ledger", "append", "prefect")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of a running S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def stack(s3, postgres_server, backbone_settings, tmp_path_factory) -> Iterator[Stack]:
    """Registry, Prefect's server and release service, from the files of the containers."""
    from clr.data.workspace import init_workspace
    from clr.registry.server.templates import TEMPLATES

    root = tmp_path_factory.mktemp("containers")
    init_workspace(root / "workspace", TEMPLATES)
    stack = prepare(root, root / "workspace", postgres_server, s3, _programs(), backbone_settings)
    try:
        stack.start("buckets")
        stack.start("prefect")
        stack.start("registry")
        stack.wait("prefect", "registry")
        stack.start("release-service")
        stack.wait("release-service")
        yield stack
    finally:
        stack.stop()
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            for database in ("clr", "prefect"):
                connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
            for role in ROLES:
                connection.execute(f"DROP ROLE IF EXISTS clr_{role}")


def keys(s3: str, bucket: str) -> dict[str, int]:
    client = boto3.client(
        "s3", endpoint_url=s3, aws_access_key_id="a", aws_secret_access_key="b",
        region_name="us-east-1",
    )  # fmt: skip
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", ())}


def test_from_a_task_to_a_release(stack, s3, tmp_path):
    task = make_task(tmp_path / "red-caps", 0)
    done = stack.execute("worker-cpu", "onboard", str(task), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["verdict"], document["version"]) == ("passed", 1)
    files = keys(s3, "clr-artifacts")
    assert any(key.endswith("/artifacts/adapter.safetensors") for key in files)
    assert all(key.startswith("mlflow/") for key in files)
    images = sum(1 for _ in (stack.workspace / "data" / "red-caps").rglob("*.png"))
    assert len(keys(s3, "clr-data")) >= images
    for name in ("registry", "worker-cpu"):  # no file of the registry, no database beside S3
        assert not [*stack.state(name).rglob("*.safetensors")] or name == "worker-cpu"
        assert not [*stack.state(name).rglob("mlflow.db"), *stack.state(name).rglob("ledger.db")]
    added = stack.execute(
        "clr", "users", "add", "alice", "--role", "reviewer", CLR_PASSWORD="x" * 12
    )
    assert added.returncode == 0, added.stderr
    approval = {"name": "clr-red-caps", "version": "1", "key": "review", "value": "approved"}
    url = f"{stack.url('registry')}{API}"
    answer = requests.post(
        f"{url}/model-versions/set-tag", json=approval, auth=("alice", "x" * 12), timeout=60
    )
    assert answer.status_code == 200, answer.text
    trainer = ("clr-trainer", stack.secret("trainer.password"))

    def champion() -> bool:
        alias = {"name": "clr-release", "alias": "champion"}
        found = requests.get(
            f"{url}/registered-models/alias", params=alias, auth=trainer, timeout=30
        )
        return found.status_code == 200

    until(champion, 120)
    checked = stack.execute("worker-cpu", "verify", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout)["problems"] == []
