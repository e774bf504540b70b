"""What git does not tell is no answer, and what it is told to reach may hold a password."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clr.data.workspace import init_workspace
from clr.errors import ServiceUnavailable
from clr.settings import Settings
from flows import git_look

TOLD = "https://bot:s3cr3t@127.0.0.1/plant"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    init_workspace(tmp_path / "plant")
    return Settings(workspace=tmp_path / "plant", git_remote=f"{TOLD}.git", dvc_remote=TOLD)


def test_a_repository_without_a_commit_is_at_none(settings: Settings) -> None:
    assert git_look.head(settings, "workspace") == ""


def test_a_repository_that_git_refuses_is_not_one_without_a_commit(
    settings: Settings, git_refuses: None
) -> None:
    with pytest.raises(ServiceUnavailable, match="dubious ownership"):
        git_look.head(settings, "workspace")


def test_a_remote_that_hangs_is_told_without_its_password(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = tmp_path / "hanging" / "git"
    hanging.parent.mkdir()
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", f"{hanging.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(git_look, "SECONDS", 0.2)
    with pytest.raises(ServiceUnavailable, match="no answer in") as refusal:
        git_look.head(settings, "remote")
    assert "s3cr3t" not in str(refusal.value)


def test_reading_a_commit_has_as_long_as_a_step(settings: Settings) -> None:
    from flows.git_arrivals import _have_read

    hurried = settings.model_copy(update={"step_minutes": 0.001})
    with pytest.raises(ServiceUnavailable, match=r"was not read in 0\.001 min"):
        _have_read(hurried, "workspace", "0" * 40)


def test_a_data_set_in_the_registry_names_its_remote_without_a_password(settings: Settings) -> None:
    from flows.register import dataset

    job: Any = SimpleNamespace(
        session=SimpleNamespace(settings=settings),
        task=SimpleNamespace(name="caps"),
        data=SimpleNamespace(
            digest=f"md5:{'0' * 32}.dir", commit="", dirty=False, dvc_file_sha256="sha256:0"
        ),
        manifest=SimpleNamespace(train=1, test=1, classes=("a", "b"), digest="sha256:1"),
    )
    source = dataset(job).source.to_json()
    assert "https://127.0.0.1/plant" in source
    assert "s3cr3t" not in source
