"""What git says: the commit that a repository is at, and what ``data.dvc`` is there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from clr.data.listing import pinned_oid
from clr.data.repository import git_output, git_root
from clr.errors import UsageError
from clr.settings import Settings

Place = Literal["workspace", "remote"]
SECONDS = 120.0


def head(settings: Settings, place: Place) -> str:
    """Return the commit (40 hex) that a repository is at; empty where there is none yet.

    Raises:
        ServiceUnavailable: the remote cannot be reached, or git refuses the repository.
    """
    if place == "workspace":
        if git_root(settings.workspace) is None:
            return ""
        return _git(settings.workspace, "rev-parse", "--verify", "--quiet", "HEAD", fails=True)
    if not settings.git_remote:
        return ""
    found = _git(settings.workspace, "ls-remote", "--", settings.git_remote, "HEAD")
    return found.split("\t")[0] if found else ""


def pinned_at(settings: Settings, place: Place, commit: str) -> str:
    """Return the ``<32 hex>.dir`` that ``data.dvc`` pins in a commit; empty where it has none.

    Raises:
        UsageError: there is no such commit.
        IntegrityBroken: ``data.dvc`` has another form there than DVC writes.
        ServiceUnavailable: the remote cannot be reached.
    """
    _require_plain(commit)
    folder = settings.workspace if place == "workspace" else _fetched(settings, commit)
    known = _git(folder, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", fails=True)
    if not known:
        raise UsageError(
            f"There is no commit {commit[:40]!r} in the {place}'s git repository.",
            fix="Push it to the repository that CLR_GIT_REMOTE names, or fetch it here.",
        )
    name = f"{known}:{_path(settings)}"
    if not _git(folder, "rev-parse", "--verify", "--quiet", name, fails=True):
        return ""
    text = _git(folder, "cat-file", "blob", name)
    with tempfile.TemporaryDirectory(dir=settings.state, prefix=".git-") as scratch:
        (Path(scratch) / "data.dvc").write_text(text, encoding="utf-8")
        return pinned_oid(Path(scratch))


def place_of(settings: Settings, commit: str) -> Place:
    """Return which repository to look for a commit in: the workspace's where it has it."""
    _require_plain(commit)
    if git_root(settings.workspace) is not None:
        name = f"{commit}^{{commit}}"
        found = _git(settings.workspace, "rev-parse", "--verify", "--quiet", name, fails=True)
        if found:
            return "workspace"
    return "remote" if settings.git_remote else "workspace"


def full(settings: Settings, place: Place, commit: str) -> str:
    """Return the 40 hex of a commit that is there."""
    folder = settings.workspace if place == "workspace" else _mirror(settings)
    return _git(folder, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")


def parent(settings: Settings, commit: str) -> str:
    """Return the first parent of a commit of the workspace's repository; empty for the first."""
    return _git(settings.workspace, "rev-parse", "--verify", "--quiet", f"{commit}^1", fails=True)


def _require_plain(commit: str) -> None:
    if not commit or commit.startswith("-"):
        raise UsageError(f"{commit[:40]!r} is no commit.", fix="Give what `git log` shows.")


def _path(settings: Settings) -> str:
    """Where ``data.dvc`` is in the repository; a remote has the same folders."""
    workspace = settings.workspace.absolute()
    root = git_root(workspace)
    return "data.dvc" if root is None else (workspace / "data.dvc").relative_to(root).as_posix()


def _fetched(settings: Settings, commit: str) -> Path:
    """Fetch the newest commit of the remote into a bare repository of our own."""
    mirror = _mirror(settings)
    if not (mirror / "HEAD").is_file():
        mirror.parent.mkdir(parents=True, exist_ok=True)
        _git(mirror.parent, "init", "--quiet", "--bare", mirror.name)
    name = f"{commit}^{{commit}}"
    if not _git(mirror, "rev-parse", "--verify", "--quiet", name, fails=True):
        _git(mirror, "fetch", "--quiet", "--no-tags", "--", settings.git_remote, "HEAD")
    return mirror


def _mirror(settings: Settings) -> Path:
    return settings.state / "git" / "remote.git"


def _git(folder: Path, *arguments: str, fails: bool = False) -> str:
    """Return what git says; where it `fails` to find something, that is an answer: ""."""
    answers = (0, 1) if fails else (0,)
    return git_output(folder, *arguments, answers=answers, seconds=SECONDS).strip()
