"""A served workspace, made once in seconds; who changes it works on a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.serving.plants import Served, build


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Three tasks and two releases, the second in force. Do not change it: see `own`."""
    from tests import templates

    templates.migrate_once()
    return build(tmp_path_factory.mktemp("served") / "plant")


@pytest.fixture
def own(served: Served, copy_of: Callable[..., Any], tmp_path: Path) -> Served:
    """A copy, to be changed and broken at will."""
    root = tmp_path / "plant"
    copy_of(_Plant(served.root), root)
    # what the original has answered meanwhile is none of the copy's history
    shutil.rmtree(root / ".clr" / "serving", ignore_errors=True)
    return replace(served, root=root)


class _Plant:
    """What `copy_of` wants to know of a workspace."""

    def __init__(self, root: Path) -> None:
        self.root, self.settings = root, {}
