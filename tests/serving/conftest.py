"""A served workspace, made once in seconds; who changes it works on a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.plants import Served, build, copied


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Three tasks and two releases, the second in force. Do not change it: see `own`."""
    from tests import templates

    templates.migrate_once()
    templates.sync_never()
    return build(tmp_path_factory.mktemp("served") / "plant")


@pytest.fixture
def own(served: Served, tmp_path: Path) -> Served:
    """A copy, to be changed and broken at will."""
    return copied(served, tmp_path / "plant")
