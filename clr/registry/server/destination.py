"""Where the registry server keeps files: a folder under ``CLR_HOME``, or a bucket of S3.

Clients never see which: they send and fetch files through the server, where the policy is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clr.errors import ServiceUnavailable, UsageError, extra
from clr.registry.server.config import artifacts_folder, artifacts_url

if TYPE_CHECKING:
    from clr.settings import Settings

_CREATING = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")


def check_destination(settings: Settings) -> str:
    """See that the store of files can be used, and that no file stays behind elsewhere.

    Returns:
        its address.

    Raises:
        UsageError: ``CLR_REGISTRY_ARTIFACTS`` is not of the form s3://bucket/path, or it is
            empty while this registry has files in its folder so far.
        ServiceUnavailable: the bucket cannot be reached with these credentials.
    """
    url = artifacts_url(settings)
    if not settings.registry_artifacts:
        return url
    if _is_empty(url) and _has_files(artifacts_folder(settings.state)):
        folder = artifacts_folder(settings.state)
        raise UsageError(
            f"The registry's files are in {folder}, and {url} holds none.",
            fix=f"Copy them there first: aws s3 sync {folder} {url}",
        )
    return url


def make_buckets(*urls: str) -> list[str]:
    """Make the buckets of these addresses, those that are not there.

    Args:
        urls: ``s3://bucket/path``; others are left out.

    Returns:
        names of all the buckets, sorted.

    Raises:
        ServiceUnavailable: the store cannot be reached, or these credentials may not.
    """
    from botocore.exceptions import ClientError

    names = sorted({urlsplit(url).netloc for url in urls if url.startswith("s3://")})

    def make() -> None:
        client = _client()
        there = {one["Name"] for one in client.list_buckets()["Buckets"]}
        for name in names:
            if name in there:
                continue
            try:
                client.create_bucket(Bucket=name)
            except ClientError as error:  # somebody else was faster
                if error.response["Error"]["Code"] not in _CREATING:
                    raise

    _reaching(", ".join(names), make)
    return names


def _is_empty(url: str) -> bool:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    found = _reaching(url, lambda: _client().list_objects_v2(
        Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", MaxKeys=1))  # fmt: skip
    return not found.get("KeyCount")


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _client() -> Any:
    import boto3
    from botocore.config import Config

    few = Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 3})
    endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None  # else AWS_ENDPOINT_URL
    return boto3.client("s3", endpoint_url=endpoint, config=few)


def _reaching(what: str, act: Callable[[], Any]) -> Any:
    try:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise UsageError(
            "Files in S3 need a package that is not installed.",
            fix=f"{extra('s3')}.",
        ) from error
    try:
        return act()
    except (Boto3Error, BotoCoreError, ClientError, ValueError) as error:
        raise ServiceUnavailable(
            f"The store of files cannot be used ({what}): {' '.join(str(error).split())[:300]}",
            fix="See that it runs, that the bucket exists, and that MLFLOW_S3_ENDPOINT_URL, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are those of a user who may read, "
            "write and list it.",
        ) from error
