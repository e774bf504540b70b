"""DVC data as an MLflow dataset: name, digest, source and profile on the run's page.

MLflow is imported at the top here, since the classes derive from its own; import
this module inside functions.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import register_dataset_source

from clr.errors import UsageError

_DIGEST = re.compile(r"md5:([0-9a-f]{32}\.dir)")


def short_digest(digest: str) -> str:
    """Return a DVC digest without its ``md5:`` (MLflow keeps at most 36 characters).

    Raises:
        UsageError: not of the form ``md5:<32 hex>.dir``.
    """
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise UsageError(f"Not a DVC directory digest: {digest!r}.", fix="Use md5:<32 hex>.dir.")
    return found.group(1)


class DvcDatasetSource(DatasetSource):
    """Where the data is: folder, DVC file and digest, remote, git commit."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = dict(facts)

    @staticmethod
    def _get_source_type() -> str:
        return "dvc"

    def load(self, **_: Any) -> Any:
        """Refuse: DVC fetches data, this only says which."""
        raise NotImplementedError(f"dvc pull {self.facts.get('path', '')}")

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return isinstance(raw_source, dict) and "dvc_digest" in raw_source

    @classmethod
    def _resolve(cls, raw_source: dict[str, Any]) -> DvcDatasetSource:
        return cls(raw_source)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts, JSON-serialisable."""
        return dict(self.facts)

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> DvcDatasetSource:
        """Return the source that `to_dict` wrote."""
        return cls(source_dict)


class DvcDataset(Dataset):
    """A task's data as it was at one DVC digest."""

    def __init__(self, source: DvcDatasetSource, name: str, digest: str, facts: dict[str, Any]):
        self._facts = dict(facts)
        super().__init__(source=source, name=name, digest=digest)

    def _compute_digest(self) -> str:
        return short_digest(str(self.source.to_dict()["dvc_digest"]))

    @property
    def profile(self) -> dict[str, Any]:
        """Counts a person wants to see first: images, classes, splits."""
        return dict(self._facts)

    @property
    def schema(self) -> None:
        """Images have none."""
        return None

    def to_dict(self) -> dict[str, str]:
        """Return what MLflow stores."""
        stored: dict[str, str] = super().to_dict()
        return {**stored, "profile": json.dumps(self._facts, sort_keys=True)}


def dvc_dataset(
    task: str,
    digest: str,
    *,
    source: dict[str, Any] | None = None,
    profile: dict[str, Any],
) -> DvcDataset:
    """Return the dataset of `task` at `digest` (``md5:<32 hex>.dir``).

    Args:
        task: its name is the dataset's.
        digest: DVC digest of the task's folder.
        source: path, remote, git commit, whatever says where the bytes are.
        profile: counts, JSON-serialisable.
    """
    place = DvcDatasetSource({"path": f"data/{task}", **(source or {}), "dvc_digest": digest})
    return DvcDataset(place, task, short_digest(digest), profile)


register_dataset_source(DvcDatasetSource)  # type: ignore[arg-type]  # wants the class, says object
