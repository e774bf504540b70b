"""Paths of the artifact store: what MLflow makes of them, and whose files they are (pure)."""

from __future__ import annotations

import re

_RUN = re.compile(r"[0-9a-f]{32}")
_MODEL = re.compile(r"m-[0-9a-f]{32}")
_ARTIFACTS = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts/(?P<path>.*)", re.DOTALL)


def logical(path: str) -> str:
    """Return `path` as MLflow will use it; one that MLflow refuses is returned as it is.

    MLflow decodes percent signs until nothing changes and only then looks for ``..``; the
    policy refuses what is left of such things, so that a path is one thing for both.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils.uri import validate_path_is_safe

    try:
        return str(validate_path_is_safe(path))  # type: ignore[no-untyped-call]
    except (MlflowException, ValueError):
        return path or ".."


def ids_in(path: str) -> tuple[str, ...]:
    """Return the ids of runs and logged models that are folders of `path`."""
    parts = path.split("/")
    return tuple(part for part in parts if _RUN.fullmatch(part) or _MODEL.fullmatch(part))


def artifact_path(path: str) -> str | None:
    """Return the part of an address after ``…/mlflow-artifacts/artifacts/``; None without."""
    found = _ARTIFACTS.search(path)
    return found["path"] if found else None
