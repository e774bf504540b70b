"""What was asked for, checked before anything slow starts and before anything is changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clr.errors import ServiceUnavailable, UsageError
from flows.session import Session

if TYPE_CHECKING:
    from clr.data.folder import TaskFolder


def check_request(session: Session, path: Path | str, name: str | None) -> TaskFolder:
    """Return the task folder if folder, ``task.yaml`` and settings can be met.

    Raises:
        UsageError: no such folder, a name or setting that cannot be, an unknown backbone.
        DataRefused: it has no ``train`` folder with class folders in it.
        IntegrityBroken: the backbone's file is not the pinned one, or holds code.
        ServiceUnavailable: the backbone's weights are not here.
    """
    from clr.data.folder import read_task

    folder = read_task(path, name)
    from clr.core.recipe import Recipe  # imports PyTorch, which takes seconds
    from clr.roi import parse_business

    Recipe.of(folder.recipe)
    place = f"business in {folder.name}'s task.yaml"
    parse_business(session.assumptions(folder), place, classes=folder.classes)
    wanted = folder.backbone
    if wanted and wanted != session.settings.backbone:
        raise UsageError(
            f"Task {folder.name} asks for the backbone {wanted}; this workspace has "
            f"{session.settings.backbone}, one for all its tasks.",
            fix="Remove `backbone` from task.yaml, or onboard the task in a workspace of its own.",
        )
    session.backbone.check()
    return folder


def require_writable(folder: Path) -> None:
    """Make a folder that something will be written into.

    Raises:
        ServiceUnavailable: it cannot be made, or not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else "permission denied"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise ServiceUnavailable(
            f"{folder} is no folder to write into: {reason}.",
            fix="Give another folder with --output.",
        )
