"""Files of a version that ``data/`` no longer holds, out of DVC's cache or its remote."""

from __future__ import annotations

from pathlib import Path

from clr.core.files import write_atomic
from clr.data import dvc, listing, objects
from clr.data.dvc_calls import translated
from clr.errors import UsageError
from clr.settings import Settings


def holds(workspace: Path, task: str, digest: str) -> bool:
    """Say whether ``data.dvc`` pins this version of a task.

    Args:
        workspace: folder that holds ``data.dvc``.
        task: name of the task.
        digest: ``md5:<32 hex>.dir``.

    Raises:
        IntegrityBroken: ``data.dvc`` or DVC's list of files is missing or damaged.
    """
    from clr.data.check import task_digest

    try:
        return task_digest(workspace, task) == digest
    except UsageError:  # it pins no version of this task
        return False


def restore_split(settings: Settings, digest: str, split: str, folder: Path) -> None:
    """Write a split of a former version into `folder`; what cannot be had is left out.

    The caller compares digests: nothing here says that the files are the right ones.

    Args:
        settings: of the workspace.
        digest: ``md5:<32 hex>.dir`` of the version.
        split: ``train`` or ``test``.
        folder: an empty folder.

    Raises:
        IntegrityBroken: DVC's list of the version's files is corrupt.
        ServiceUnavailable: the repository cannot be opened, or the disk is full.
    """
    oid = digest.removeprefix("md5:")
    with dvc.open_repo(settings) as repo:
        content = objects.fetch_object(repo, oid)
        files = listing.read_listing(content, oid) if content is not None else {}
        with translated("restore a former test set", settings.workspace.absolute()):
            for path, md5 in files.items():
                if not path.startswith(f"{split}/"):
                    continue
                data = objects.fetch_object(repo, md5)
                if data is not None:
                    write_atomic(folder / path, data)
