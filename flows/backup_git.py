"""The part of a backup that is the history of the workspace's git repository, as a bundle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.core.files import sha256_bytes
from clr.data.repository import git_root, run_git
from clr.errors import ServiceUnavailable

if TYPE_CHECKING:
    from clr.settings import Settings
    from flows.backup import Collection

BUNDLE = "dumps/git.bundle"


def collect(got: Collection, settings: Settings, before: Mapping[str, Any]) -> dict[str, str]:
    """Take all commits, branches and tags, the repository's configuration and its hooks.

    Args:
        got: the snapshot.
        settings: of the workspace.
        before: facts of the snapshot before.

    Returns:
        {head, refs}: where HEAD is, and a digest of all references; empty without a repository.

    Raises:
        ServiceUnavailable: git fails.
    """
    workspace = settings.workspace
    root = git_root(workspace)
    if root is None or shutil.which("git") is None:
        return {}
    if root != workspace:
        got.left_out.append(f"the git repository {root}: it is more than this workspace")
        return {}
    folder = Path(run_git(workspace, "rev-parse", "--absolute-git-dir").stdout.strip())
    got.file(folder / "config", "dumps/git/config")
    for hook in sorted((folder / "hooks").glob("*")):
        if hook.suffix != ".sample" and hook.is_file():
            got.file(hook, f"dumps/git/hooks/{hook.name}")
    refs = run_git(workspace, "show-ref", "--head").stdout
    head = run_git(workspace, "symbolic-ref", "--quiet", "HEAD").stdout.strip()
    about = {"head": head, "refs": sha256_bytes(refs.encode())}
    same = (before.get("git") or {}).get("refs") == about["refs"]
    kept = got.before.get(BUNDLE)
    if same and kept is not None and got.store.object(kept.sha256).is_file():
        got.files[BUNDLE] = kept
    elif refs:
        _bundle(got, workspace)
    return about


def _bundle(got: Collection, workspace: Path) -> None:
    out = got.temporary(BUNDLE)
    _git(workspace, "-c", "pack.threads=1", "bundle", "create", "--quiet", out, "HEAD", "--all")
    got.taken(BUNDLE)


def restore(folder: Path, bundle: Path | None, about: Mapping[str, str]) -> None:
    """Make the repository of a workspace whose working files are there already.

    Args:
        folder: the workspace.
        bundle: file with the history; None before the first commit.
        about: what `collect` returned.

    Raises:
        ServiceUnavailable: git is missing or fails.
    """
    if shutil.which("git") is None:
        raise ServiceUnavailable(
            "git is not installed, and this backup has the history of a repository.",
            fix="Install git, then run the same again.",
        )
    _git(folder, "-c", "init.defaultBranch=main", "init", "--quiet")
    if bundle is not None:
        _git(
            folder,
            "fetch",
            "--quiet",
            "--update-head-ok",
            bundle,
            "refs/*:refs/*",
            "+HEAD:refs/clr/head",
        )
    if about["head"]:
        _git(folder, "symbolic-ref", "HEAD", about["head"])
    elif bundle is not None:
        commit = _git(folder, "rev-parse", "refs/clr/head").strip()
        _git(folder, "update-ref", "--no-deref", "HEAD", commit)
    if bundle is not None:
        _git(folder, "update-ref", "-d", "refs/clr/head")
        _git(folder, "reset", "--quiet", "--mixed")


def _git(folder: Path, *arguments: str | os.PathLike[str]) -> str:
    done = run_git(folder, *(os.fspath(one) for one in arguments))
    if done.returncode:
        raise ServiceUnavailable(
            f"git {next(str(one) for one in arguments if str(one)[0] != '-')} failed in {folder}: "
            f"{' '.join(done.stderr.split())[:300]}",
            fix="Put that right, then run the same again.",
        )
    return done.stdout
