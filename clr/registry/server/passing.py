"""Files in S3 pass through the server: it hands out no address that goes around it.

MLflow would give whoever asks signed addresses of its bucket, to upload to and to download
from, and its clients use them by themselves. An address to upload to works after the file was
registered; and a client would need a way to the bucket. Here every byte is written by the
server, after the policy has decided.
"""

from __future__ import annotations

from typing import Any

from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from clr.registry.server.inside import handlers


class Passing(ArtifactRepository):
    """A store of files without the interfaces by which MLflow recognises signed addresses."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner.artifact_uri)
        self._inner = inner

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Write one file."""
        self._inner.log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Write a folder of files."""
        self._inner.log_artifacts(local_dir, artifact_path)

    def list_artifacts(self, path: str | None = None) -> Any:
        """List a folder."""
        return self._inner.list_artifacts(path)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._inner._download_file(remote_file_path, local_path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file or folder."""
        self._inner.delete_artifacts(artifact_path)


def pass_through(url: str) -> None:
    """Let this server process keep its files at `url`, and hand out no address there.

    Args:
        url: ``s3://bucket/path``, the server's destination of artifacts.
    """
    handlers._artifact_repo = Passing(get_artifact_repository(url))
