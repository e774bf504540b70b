"""Files in S3, over HTTP: the registry's store and DVC's remote."""

from __future__ import annotations

import shutil
from typing import Any

import boto3
import pytest

from clr.data.folder import read_task
from clr.data.manifest import scan
from clr.data.versioning import require_pinned, version_task
from clr.data.workspace import init_workspace
from clr.errors import ServiceUnavailable, UsageError
from clr.registry.server.config import artifacts_url, server_arguments
from clr.registry.server.destination import check_destination, make_buckets
from clr.registry.server.files import _download
from clr.settings import load_settings
from tests.conftest import make_task


@pytest.fixture(autouse=True)
def login(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "word")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def client() -> Any:
    return boto3.client("s3")


def settings_of(root, monkeypatch, **given: str):
    init_workspace(root)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return load_settings(root)


def test_buckets_are_made_once():
    wanted = ("s3://one/a", "s3://two/b/c", "s3://one/d", "", "/srv/folder")
    assert make_buckets(*wanted) == ["one", "two"]
    assert make_buckets(*wanted) == ["one", "two"]


def test_the_server_is_told_where_its_files_are(tmp_path, monkeypatch):
    make_buckets("s3://files")
    settings = settings_of(tmp_path, monkeypatch, CLR_REGISTRY_ARTIFACTS="s3://files/mlflow/")
    assert check_destination(settings) == artifacts_url(settings) == "s3://files/mlflow"
    arguments = server_arguments(settings, "127.0.0.1", 5000)
    assert arguments[arguments.index("--artifacts-destination") + 1] == "s3://files/mlflow"


def test_files_of_before_are_not_left_behind(tmp_path, monkeypatch, client):
    make_buckets("s3://later")
    settings = settings_of(tmp_path, monkeypatch, CLR_REGISTRY_ARTIFACTS="s3://later/mlflow")
    old = settings.state / "artifacts" / "1" / "file"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"registered")
    client.put_object(Bucket="later", Key="mlflow-of-others/1", Body=b"")
    with pytest.raises(UsageError, match="aws s3 sync"):
        check_destination(settings)
    client.put_object(Bucket="later", Key="mlflow/1/file", Body=b"registered")
    assert check_destination(settings) == "s3://later/mlflow"


@pytest.mark.parametrize("url", ["/srv", "s3://", "s3://B/x", "s3://bucket/../x", "gs://b/x",
                                 "s3://bucket/a b"])  # fmt: skip
def test_no_place_in_s3(tmp_path, monkeypatch, url):
    with pytest.raises(UsageError, match="CLR_REGISTRY_ARTIFACTS"):
        check_destination(settings_of(tmp_path, monkeypatch, CLR_REGISTRY_ARTIFACTS=url))


def test_a_store_that_cannot_be_reached_is_named(tmp_path, monkeypatch):
    settings = settings_of(tmp_path, monkeypatch, CLR_REGISTRY_ARTIFACTS="s3://nowhere/mlflow")
    with pytest.raises(ServiceUnavailable, match="nowhere"):
        check_destination(settings)  # no such bucket
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:9"):
        check_destination(settings)


def test_a_missing_file_is_told_from_a_store_that_is_away(client, monkeypatch):
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    make_buckets("s3://read")
    client.put_object(Bucket="read", Key="mlflow/1/models/m/artifacts/release.json", Body=b"{}")
    files = get_artifact_repository("s3://read/mlflow")
    assert _download(files, "1/models/m/artifacts/release.json") == b"{}"
    assert _download(files, "1/models/m/artifacts/release.jso") is None
    assert _download(files, "1/models/other/artifacts/release.json") is None
    client.delete_object(Bucket="read", Key="mlflow/1/models/m/artifacts/release.json")
    client.delete_bucket(Bucket="read")
    with pytest.raises(ServiceUnavailable, match="cannot be read"):
        _download(files, "1/models/m/artifacts/release.json")


def test_versions_of_data_go_to_s3_and_come_back(tmp_path, monkeypatch, client):
    make_buckets("s3://data")
    settings = settings_of(tmp_path / "one", monkeypatch, CLR_DVC_REMOTE="s3://data/dvc")
    task = read_task(make_task(tmp_path / "red-caps", 0, train=2, test=1))
    manifest = scan(task, max_pixels=settings.max_image_pixels)
    version = version_task(task, manifest, settings)
    assert version.pushed
    kept = {one["Key"]: one["ETag"].strip('"') for one in
            client.list_objects_v2(Bucket="data")["Contents"]}  # fmt: skip
    assert len(kept) == version.files + 2  # and the lists of the whole and of the task
    for key, etag in kept.items():  # under its own md5 lies what has that md5
        folder, name = key.removeprefix("dvc/files/md5/").split("/")
        assert folder + name.removesuffix(".dir") == etag
    lost = next(key for key in kept if not key.endswith(".dir"))
    client.delete_object(Bucket="data", Key=lost)
    assert version_task(task, manifest, settings).digest == version.digest
    assert client.head_object(Bucket="data", Key=lost)["ETag"].strip('"') == kept[lost]

    from clr.data import dvc

    init_workspace(tmp_path / "two")
    shutil.copy(tmp_path / "one" / "data.dvc", tmp_path / "two" / "data.dvc")
    other = load_settings(tmp_path / "two")
    with dvc.open_repo(other) as repo:
        repo.pull()
    assert require_pinned(other) == require_pinned(settings)
    one, two = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*.png")}
        for root in (tmp_path / "one" / "data", tmp_path / "two" / "data")
    )
    assert one == two
    assert len(one) == 6
